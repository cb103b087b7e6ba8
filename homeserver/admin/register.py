"""`/_synapse/admin/v1/register`: accounts made with a shared secret, as scripts and other tools expect it.

A client fetches a nonce and sends name, password and rights with an HMAC-SHA1 over them; the secret itself never
travels. A nonce is good once, for a minute.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.login import Wish
from homeserver.accounts.registration import NewAccount, Registration
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route

NONCE_SECONDS = 60.0
MAX_NONCES = 1_000


class SharedSecretRequest(msgspec.Struct):
    """The body of the POST. ``mac`` is hexadecimal."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    displayname: str | None = None
    user_type: str | None = None
    inhibit_login: bool = False


class SharedSecretRegistration:
    """The two routes; ``now`` gives seconds that never go back."""

    def __init__(self, registration: Registration, config: Config, now: Callable[[], float]) -> None:
        self._registration = registration
        self._secret = config.registration_shared_secret
        self._now = now
        self._nonces: dict[str, float] = {}

    def routes(self) -> list[Route]:
        """The routes; none when there is no shared secret."""
        if not self._secret:
            return []
        path = "/_synapse/admin/v1/register"
        return [
            Route("GET", path, self.new_nonce, Auth.NONE),
            Route("POST", path, self.register, Auth.NONE),
        ]

    def new_nonce(self, call: Call) -> dict[str, Any]:
        """A nonce for one registration."""
        now = self._now()
        for nonce, born in list(self._nonces.items()):
            if now - born < NONCE_SECONDS and len(self._nonces) < MAX_NONCES:
                break
            del self._nonces[nonce]
        nonce = secrets.token_hex(32)
        self._nonces[nonce] = now
        return {"nonce": nonce}

    async def register(self, call: Call) -> dict[str, Any]:
        """Make the account, also while registration is closed. Raises MatrixError 400 and 403."""
        request = call.json(SharedSecretRequest)
        if not request.username or len(request.username) > 512:
            raise MatrixError(400, "M_INVALID_PARAM", "The user name has to have 1 to 512 characters")
        if not 0 < len(request.password.encode()) <= 512:
            raise MatrixError(400, "M_INVALID_PARAM", "The password has to have 1 to 512 bytes")
        born = self._nonces.pop(request.nonce, None)
        if born is None or self._now() - born >= NONCE_SECONDS:
            raise MatrixError(400, "M_UNKNOWN", "Unknown nonce")
        expected = _mac(self._secret or "", request)
        if not hmac.compare_digest(expected.encode(), request.mac.lower().encode()):
            raise MatrixError(403, "M_UNKNOWN", "The MAC is wrong")
        localpart = await self._registration.check_available(request.username)
        return await self._registration.create(
            NewAccount(
                localpart=localpart,
                password_hash=await self._registration.hash_password(request.password),
                wish=None if request.inhibit_login else Wish(),
                is_admin=request.admin,
                display_name=request.displayname,
            )
        )


def _mac(secret: str, request: SharedSecretRequest) -> str:
    parts = [request.nonce, request.username, request.password, "admin" if request.admin else "notadmin"]
    if request.user_type:
        parts.append(request.user_type)
    message = b"\0".join(part.encode("utf-8") for part in parts)
    return hmac.new(secret.encode(), message, hashlib.sha1).hexdigest()
