"""Operations for other servers on the router: signed requests instead of access tokens.

Server-Server API, "Authentication". What the signature covers is checked by the wire; here a call becomes a
`PeerRequest` and a JSON value an answer.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from federation.inbound.operation import Operation, PeerRequest
from homeserver.web.body import decode_object
from homeserver.web.call import Answer, Call, parse_query
from homeserver.web.routes import Auth, Route


class RequestAuthenticator(Protocol):
    """Knows who signed a request."""

    async def authenticate(self, call: Call) -> str:
        """The name of the server that signed the request. Raises MatrixError 401 M_UNAUTHORIZED or 403 M_FORBIDDEN."""


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
        origin = await authenticator.authenticate(call) if operation.signed else ""
        fields = parse_query(call.raw_query) if call.raw_query else {}
        content = decode_object(call.body) if call.body else None
        return Answer(200, await operation.handler(PeerRequest(origin, call.params, fields, content)))

    return handle
