"""`/account/password` (Client-Server API, "Account password management")."""

from typing import Any

import msgspec

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.passwords import Passwords, check_new_password
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.router import Auth, Route


class PasswordRequest(msgspec.Struct):
    """The body of `POST /account/password`; without a password it only asks for the stages."""

    new_password: str | None = None
    logout_devices: bool = True


class PasswordEndpoints:
    """Routes of `password_management.yaml`."""

    def __init__(
        self, deactivation: Deactivation, passwords: Passwords, interactive_auth: InteractiveAuth, config: Config
    ) -> None:
        self._deactivation = deactivation
        self._passwords = passwords
        self._interactive_auth = interactive_auth
        self._config = config

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v3/account/password"
        return [
            Route("POST", path, self.change, Auth.USER, limit="login.account"),
            Route("POST", f"{path}/email/requestToken", _no_threepids, Auth.NONE),
            Route("POST", f"{path}/msisdn/requestToken", _no_threepids, Auth.NONE),
        ]

    async def change(self, call: Call) -> dict[str, Any] | Answer:
        """Set a new password; other sessions end unless the caller wants to keep them."""
        request = call.json(PasswordRequest)
        if not self._config.password_config.enabled:
            raise MatrixError(403, "M_FORBIDDEN", "Passwords are not used on this server")
        if request.new_password is not None:
            check_new_password(request.new_password, self._config.password_config.policy)
        elif "auth" in call.json_object():
            raise MatrixError(400, "M_MISSING_PARAM", "`new_password` is missing")
        challenge = await self._interactive_auth.require(call, "change password")
        if challenge is not None:
            return challenge
        if request.new_password is None:
            raise MatrixError(400, "M_MISSING_PARAM", "`new_password` is missing")
        hashed = await self._passwords.hash(request.new_password)
        requester = call.requester
        await self._deactivation.change_password(requester.user_id, hashed, requester, request.logout_devices)
        return {}


def _no_threepids(call: Call) -> dict[str, Any]:
    """This server sends no mail and no text messages."""
    raise MatrixError(403, "M_THREEPID_DENIED", "This server does not take e-mail addresses or phone numbers")
