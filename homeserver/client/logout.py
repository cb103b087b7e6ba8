"""`/logout` and `/logout/all` (Client-Server API, "Login")."""

from typing import Any

from homeserver.accounts.login import Logins
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class LogoutEndpoints:
    """Routes of `logout.yaml`."""

    def __init__(self, logins: Logins) -> None:
        self._logins = logins

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("POST", "/_matrix/client/v3/logout", self.logout, Auth.LOCKED),
            Route("POST", "/_matrix/client/v3/logout/all", self.logout_all, Auth.LOCKED),
        ]

    async def logout(self, call: Call) -> dict[str, Any]:
        """End this session and remove its device."""
        await self._logins.end(call.requester)
        return {}

    async def logout_all(self, call: Call) -> dict[str, Any]:
        """End all sessions of the account and remove its devices."""
        await self._logins.end_all(call.requester.user_id)
        return {}
