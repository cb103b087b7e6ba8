"""What an operation for other servers is given of a call."""

from typing import Any

import pytest_twisted

from federation.inbound.operation import Operation, PeerRequest
from homeserver.web.call import Call
from homeserver.web.peer_routes import peer_routes


@pytest_twisted.ensureDeferred
async def test_an_operation_that_needs_no_signature_has_its_body() -> None:
    seen: list[Any] = []

    async def handler(request: PeerRequest) -> dict[str, Any]:
        seen.append((request.origin, request.content))
        return {}

    [route] = peer_routes([Operation("POST", "/query", handler, signed=False)], None)  # type: ignore[arg-type]
    await route.handler(Call("POST", "/query", {}, b'{"server_keys": {}}'))
    await route.handler(Call("POST", "/query", {}))
    assert seen == [("", {"server_keys": {}}), ("", None)]
