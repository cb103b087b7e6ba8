"""Who makes a request: verifies the X-Matrix signature of an incoming one.

Specification: Server-Server API, "Request Authentication".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from federation.ports import Destinations
from federation.rules import canonical_json
from federation.rules.errors import MatrixError
from federation.rules.signing import signature_is_valid
from federation.wire import xmatrix
from federation.wire.domains import Domains
from federation.wire.keyring import KeyRing


class SignedRequest(NamedTuple):
    """A request whose signature is right: by which server, and its decoded body (None without one)."""

    origin: str
    content: Any


class RequestAuth:
    """Checks requests of other servers."""

    def __init__(
        self, server_name: str, keys: KeyRing, domains: Domains, destinations: Destinations | None = None
    ) -> None:
        """``destinations`` is told that a caller is alive."""
        self._server_name = server_name
        self._keys = keys
        self._domains = domains
        self._destinations = destinations

    async def authenticate(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes
    ) -> SignedRequest:
        """Verify a request. ``uri`` is the request target as it was received, query included; header names are in
        lower case. Raises MatrixError: 401 M_UNAUTHORIZED, 403 M_FORBIDDEN, 400 for a body that is not JSON or an
        origin that is no server name.
        """
        credentials = self._credentials(headers)
        origin, destination = credentials[0].origin, credentials[0].destination
        if destination is not None and destination != self._server_name:
            raise _unauthorized("The request is for another server")
        if origin == self._server_name:
            raise _unauthorized("The request claims to come from this server itself")
        if not self._domains.permit(origin):
            raise MatrixError(403, "M_FORBIDDEN", "This server does not federate with yours")
        content = canonical_json.decode_strict(body) if body else None
        message = xmatrix.bytes_to_sign(xmatrix.request_object(method, uri, origin, destination, content))
        ids = {one.key_id for one in credentials}
        verify_keys = await self._keys.keys_for(origin, ids, self._keys.now_ms())
        for one in credentials:
            key = verify_keys.get(one.key_id)
            if key is not None and signature_is_valid(message, one.signature, key):
                if self._destinations is not None:
                    self._destinations.succeeded(origin)
                return SignedRequest(origin, content)
        if not verify_keys:
            raise _unauthorized(f"The key of {origin} could not be had or is no longer valid")
        raise _unauthorized(f"Wrong signature of {origin}")

    def _credentials(self, headers: Mapping[str, str]) -> list[xmatrix.Credentials]:
        header = headers.get("authorization")
        if header is None:
            raise _unauthorized("The request is not signed: Authorization is missing")
        try:
            return xmatrix.parse(header)
        except xmatrix.InvalidOriginError as problem:
            raise MatrixError(400, "M_INVALID_PARAM", str(problem)) from None
        except xmatrix.XMatrixError as problem:
            raise _unauthorized(str(problem)) from None


def _unauthorized(error: str) -> MatrixError:
    return MatrixError(401, "M_UNAUTHORIZED", error)
