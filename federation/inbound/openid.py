"""GET /openid/userinfo. Server-Server API, "OpenID"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import KnowsUsers
from federation.rules.errors import MatrixError


class OpenIdEndpoints:
    """Operations of `openid.yaml`: anybody who has the token may ask."""

    def __init__(self, users: KnowsUsers) -> None:
        self._users = users

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", "/_matrix/federation/v1/openid/userinfo", self.userinfo, signed=False)]

    async def userinfo(self, request: PeerRequest) -> Any:
        """Whose token it is."""
        token = request.query("access_token")
        if token is None:
            raise MatrixError(401, "M_MISSING_TOKEN", "Missing access token")
        user_id = await self._users.openid_user(token)
        if user_id is None:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "The token is unknown or has expired")
        return {"sub": user_id}
