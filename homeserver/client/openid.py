"""OpenID tokens (Client-Server API, "OpenID"): they prove to a third party who somebody is, and nothing else."""

from collections.abc import Callable
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.accounts.tokens import new_openid_token, token_hash
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route
from storage.tables import login_tokens
from storage.tables.database import Database

LIFETIME_SECONDS = 3600


class OpenIdEndpoints:
    """Routes of `openid.yaml`."""

    def __init__(self, database: Database, server_name: str, now_ms: Callable[[], int]) -> None:
        self._database = database
        self._server_name = server_name
        self._now_ms = now_ms

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v3/user/{userId}/openid/request_token"
        return [Route("POST", path, self.request_token, Auth.USER, limit="login.account")]

    async def request_token(self, call: Call) -> dict[str, Any]:
        """A token that any third party can exchange for the caller's user ID within the hour."""
        user_id = call.params["userId"]
        if user_id != call.requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "Only for oneself")
        token, now = new_openid_token(), self._now_ms()
        await self._database.run(
            lambda cur: login_tokens.insert_openid_token(
                cur, token_hash(token), user_id, now + LIFETIME_SECONDS * 1000, now
            )
        )
        return {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": LIFETIME_SECONDS,
        }
