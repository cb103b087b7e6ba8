"""`/account/deactivate` (Client-Server API, "Account deactivation")."""

from typing import Any

import msgspec

from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.router import Route


class DeactivateRequest(msgspec.Struct):
    """The body of `POST /account/deactivate`."""

    id_server: str | None = None
    erase: bool = False


class DeactivationEndpoints:
    """Routes of `account_deactivation.yaml`."""

    def __init__(self, deactivation: Deactivation, interactive_auth: InteractiveAuth) -> None:
        self._deactivation = deactivation
        self._interactive_auth = interactive_auth

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("POST", "/_matrix/client/v3/account/deactivate", self.deactivate)]

    async def deactivate(self, call: Call) -> dict[str, Any] | Answer:
        """Close the caller's account for good."""
        request = call.json(DeactivateRequest)
        challenge = await self._interactive_auth.require(call, "deactivate account")
        if challenge is not None:
            return challenge
        await self._deactivation.deactivate(call.requester.user_id, request.erase)
        # Nothing is ever bound on an identity server through us, so there is nothing to unbind.
        return {"id_server_unbind_result": "success"}
