"""Operations for other servers on the router: signed requests instead of access tokens.

Server-Server API, "Authentication". What the signature covers is checked by the wire; here a call becomes a
`PeerRequest` and a JSON value an answer.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from federation.inbound.operation import Operation, PeerRequest
from homeserver.web.body import decode
from homeserver.web.call import Answer, Call, parse_query
from homeserver.web.peer_limits import PeerLimits
from homeserver.web.routes import Auth, Route


class Signed(Protocol):
    """A request whose signature is right."""

    @property
    def origin(self) -> str:
        """The server that signed it."""

    @property
    def content(self) -> Any:
        """The decoded body, None without one."""


class RequestAuthenticator(Protocol):
    """Knows who signed a request (`federation.wire.request_auth.RequestAuth`)."""

    async def authenticate(self, method: str, uri: str, headers: Mapping[str, str], body: bytes) -> Signed:
        """Verify a request; ``uri`` is its target as received. Raises MatrixError 401 M_UNAUTHORIZED or 403, 400."""


def peer_routes(
    operations: Iterable[Operation], authenticator: RequestAuthenticator, limits: PeerLimits | None = None
) -> list[Route]:
    """The routes of operations. Who calls is said by ``authenticator``, before the body is looked at.

    ``limits`` bounds what each server may ask, None for no bounds.
    """
    return [
        Route(
            operation.method,
            operation.path,
            _handler(operation, authenticator, limits),
            Auth.NONE,
            body_limit=operation.body_limit,
        )
        for operation in operations
    ]


def _handler(
    operation: Operation, authenticator: RequestAuthenticator, limits: PeerLimits | None
) -> Callable[[Call], Any]:
    async def open_to_all(call: Call) -> Answer:
        content = decode(call.body) if call.body else None
        return Answer(200, await operation.handler(PeerRequest("", call.params, _fields(call), content)))

    async def signed(call: Call) -> Answer:
        uri = f"{call.raw_path}?{call.raw_query}" if call.raw_query else call.raw_path
        signer = await authenticator.authenticate(call.method, uri, call.headers, call.body)
        request = PeerRequest(signer.origin, call.params, _fields(call), signer.content)
        # Only now is it sure who asks: nobody can use up the turns of another server.
        if limits is None:
            return Answer(200, await operation.handler(request))
        return Answer(200, await limits.in_turn(signer.origin, lambda: operation.handler(request)))

    return signed if operation.signed else open_to_all


def _fields(call: Call) -> dict[str, list[str]]:
    return parse_query(call.raw_query) if call.raw_query else {}
