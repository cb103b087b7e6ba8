"""`/refresh` (Client-Server API, "Refreshing access tokens")."""

from typing import Any

import msgspec

from homeserver.accounts.login import Logins
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class RefreshRequest(msgspec.Struct):
    """The body of `POST /refresh`."""

    refresh_token: str


class RefreshEndpoints:
    """Routes of `refresh.yaml`."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def routes(self) -> list[Route]:
        """The routes."""
        # Where clients look that do not count on v1.3.
        old = "/_matrix/client/unstable/org.matrix.msc2918/refresh"
        path = "/_matrix/client/v3/refresh"
        return [Route("POST", path, self.refresh, Auth.NONE, limit="login.address", aliases=(old,))]

    async def refresh(self, call: Call) -> dict[str, Any]:
        """New tokens for a refresh token."""
        return await self._logins.refresh(call.json(RefreshRequest).refresh_token)
