"""Validity of registration tokens (Client-Server API, "Token-authenticated registration")."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.accounts.registration import Registration
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class RegistrationTokenEndpoints:
    """Routes of `registration_tokens.yaml`."""

    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v1/register/m.login.registration_token/validity"
        return [Route("GET", path, self.validity, Auth.NONE, limit="registration_token_validity")]

    async def validity(self, call: Call) -> dict[str, Any]:
        """Whether a token could be used to register now."""
        token = call.query("token")
        if token is None:
            raise MatrixError(400, "M_MISSING_PARAM", "`token` is missing")
        return {"valid": await self._registration.token_is_valid(token)}
