"""Cross-signing keys and signatures."""

from typing import Any, Protocol

import msgspec

from federation.rules.errors import MatrixError
from homeserver.keys.cross_signing import USAGES, CrossSigning
from homeserver.web.call import Answer, Call
from homeserver.web.routes import Route

_OLD_UPLOAD = "/_matrix/client/unstable/keys/device_signing/upload"
_OLD_SIGNATURES = "/_matrix/client/unstable/keys/signatures/upload"
"""The paths of before v1.1; clients still use them."""


class UploadKeysRequest(msgspec.Struct):
    """`POST /keys/device_signing/upload`; `auth` is read by the interactive authentication."""

    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None
    user_signing_key: dict[str, Any] | None = None


class InteractiveAuthentication(Protocol):
    """Asks the user to prove once more who they are (Client-Server API, "User-Interactive Authentication")."""

    async def require(self, call: Call, operation: str) -> Answer | None:
        """None when the call is authorised, else the 401 that tells the client what to do next."""


class CrossSigningKeys:
    """The endpoints of `cross_signing.yaml`."""

    def __init__(self, cross_signing: CrossSigning, authentication: InteractiveAuthentication) -> None:
        self._cross_signing = cross_signing
        self._authentication = authentication

    def routes(self) -> list[Route]:
        """The routes of this module."""
        return [
            Route("POST", "/_matrix/client/v3/keys/device_signing/upload", self.upload_keys, aliases=(_OLD_UPLOAD,)),
            Route("POST", "/_matrix/client/v3/keys/signatures/upload", self.upload_signatures, aliases=(_OLD_SIGNATURES,)),
        ]

    async def upload_keys(self, call: Call) -> dict[str, Any] | Answer:
        """Publish cross-signing keys; replacing existing ones takes interactive authentication."""
        requester = call.requester
        body = call.json(UploadKeysRequest)
        given = (body.master_key, body.self_signing_key, body.user_signing_key)
        uploaded = {usage: key for usage, key in zip(USAGES, given, strict=True) if key is not None}
        authenticated = requester.app_service is not None
        if not authenticated and await self._cross_signing.needs_authentication(requester.user_id, uploaded):
            challenge = await self._authentication.require(call, "upload cross-signing keys")
            if challenge is not None:
                return challenge
            authenticated = True
        await self._cross_signing.upload_keys(requester.user_id, uploaded, authenticated=authenticated)
        return {}

    async def upload_signatures(self, call: Call) -> dict[str, Any]:
        """Publish signatures; those that are wrong are named in `failures`."""
        body = call.json(dict[str, dict[str, Any]])
        failures: dict[str, dict[str, Any]] = {}
        signed: dict[str, dict[str, dict[str, Any]]] = {}
        for user_id, targets in body.items():
            for key_id, value in targets.items():
                if type(value) is dict:
                    signed.setdefault(user_id, {})[key_id] = value
                else:
                    error = MatrixError(400, "M_BAD_JSON", "The signed key has to be an object")
                    failures.setdefault(user_id, {})[key_id] = error.body()
        for user_id, failed in (await self._cross_signing.upload_signatures(call.requester.user_id, signed)).items():
            failures.setdefault(user_id, {}).update(failed)
        return {"failures": failures}
