"""Other servers, for the operator: how the queues towards them fare, and trying one again now."""

from typing import Any

from federation.outbound.queue import Outbound
from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.wire.destinations import InMemoryDestinations
from federation.wire.resolver import Resolver
from homeserver.admin.operator_socket import PREFIX
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class PeerOperations:
    """``folkmoot peers``, on the side of the server."""

    def __init__(self, outbound: Outbound, back_offs: InMemoryDestinations, resolver: Resolver) -> None:
        self._outbound = outbound
        self._back_offs = back_offs
        self._resolver = resolver

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("GET", f"{PREFIX}/peers", self.all, Auth.NONE),
            Route("GET", f"{PREFIX}/peers/{{server}}", self.one, Auth.NONE),
            Route("POST", f"{PREFIX}/peers/{{server}}/retry", self.retry, Auth.NONE),
        ]

    def all(self, call: Call) -> dict[str, Any]:
        """Every destination."""
        return {"peers": self._outbound.peers()}

    def one(self, call: Call) -> dict[str, Any]:
        """One destination, with what discovery said last and whether requests to it wait. MatrixError 404."""
        name = call.params["server"]
        known = self._outbound.peer(name)
        if known is None:
            raise MatrixError(404, "M_NOT_FOUND", f"Nothing was ever sent to {name}")
        parsed = parse_server_name(name)
        verdict = None if parsed is None else self._resolver.verdict_of(parsed.host)
        waits = self._back_offs.state_of(name)
        return {
            **known,
            "requests": None
            if waits is None
            else {"failing_since": waits.failing_since, "retry_at": waits.retry_at, "reason": waits.reason},
            "well_known": None if verdict is None else {"outcome": verdict.outcome.value, "reason": verdict.reason},
        }

    def retry(self, call: Call) -> dict[str, Any]:
        """End every wait for a server, look it up anew, and send now. MatrixError 404."""
        name = call.params["server"]
        if self._outbound.peer(name) is None:
            raise MatrixError(404, "M_NOT_FOUND", f"Nothing was ever sent to {name}")
        parsed = parse_server_name(name)
        if parsed is not None:
            self._resolver.forget(parsed.host)
        self._back_offs.succeeded(name)
        self._outbound.wake(name)
        return {}
