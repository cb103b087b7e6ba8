"""`/login/get_token` (Client-Server API, "Login tokens")."""

from typing import Any

from homeserver.accounts.login import Logins
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.router import Route


class LoginTokenEndpoints:
    """Routes of `login_token.yaml`."""

    def __init__(self, logins: Logins, interactive_auth: InteractiveAuth) -> None:
        self._logins = logins
        self._interactive_auth = interactive_auth

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("POST", "/_matrix/client/v1/login/get_token", self.get_token, limit="login.account")]

    async def get_token(self, call: Call) -> dict[str, Any] | Answer:
        """A token with which another client can log into the caller's account once."""
        challenge = await self._interactive_auth.require(call, "get login token")
        if challenge is not None:
            return challenge
        return await self._logins.new_login_token(call.requester.user_id)
