"""Operations for other servers on the router: signed requests instead of access tokens.

Server-Server API, "Authentication". What the signature covers is checked by the wire; here a call becomes a
`PeerRequest` and a JSON value an answer.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from federation.inbound.operation import Operation, PeerRequest
from homeserver.web.body import decode
from homeserver.web.call import Answer, Call, parse_query
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


def peer_routes(operations: Iterable[Operation], authenticator: RequestAuthenticator) -> list[Route]:
    """The routes of operations. Who calls is said by ``authenticator``, before the body is looked at."""
    return [
        Route(
            operation.method,
            operation.path,
            _handler(operation, authenticator),
            Auth.NONE,
            body_limit=operation.body_limit,
        )
        for operation in operations
    ]


def _handler(operation: Operation, authenticator: RequestAuthenticator) -> Callable[[Call], Any]:
    async def handle(call: Call) -> Answer:
        fields = parse_query(call.raw_query) if call.raw_query else {}
        origin, content = "", None
        if operation.signed:
            uri = f"{call.raw_path}?{call.raw_query}" if call.raw_query else call.raw_path
            signed = await authenticator.authenticate(call.method, uri, call.headers, call.body)
            origin, content = signed.origin, signed.content
        elif call.body:
            content = decode(call.body)
        return Answer(200, await operation.handler(PeerRequest(origin, call.params, fields, content)))

    return handle
