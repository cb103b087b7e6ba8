"""What one other server may ask: waits, order, refusals, and that servers do not get in each other's way."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from config.schema import FederationLimits
from federation.inbound.operation import Operation, PeerRequest
from federation.rules.errors import MatrixError
from federation.wire.request_auth import SignedRequest
from homeserver.web import peer_limits
from homeserver.web.call import Answer, Call
from homeserver.web.limits import Limits
from homeserver.web.peer_limits import PeerLimits
from homeserver.web.peer_routes import peer_routes
from homeserver.web.router import Router

SETTINGS = FederationLimits(window_size=1000, sleep_limit=4, sleep_delay=500, reject_limit=6, concurrent=2)


class Asked:
    """Requests of servers: each begins when it is its turn, and ends when the test says so."""

    def __init__(self, settings: FederationLimits = SETTINGS) -> None:
        self.clock = Clock()
        self.limits = PeerLimits(settings, self.clock)
        self.begun: list[str] = []
        self.work: dict[str, Deferred[str]] = {}
        self.refused: list[MatrixError] = []

    def ask(self, *names: str, origin: str = "one") -> None:
        for name in names:
            done = Deferred.fromCoroutine(self.limits.in_turn(origin, lambda name=name: self._do(name)))
            done.addErrback(lambda failure: self.refused.append(failure.value))

    async def _do(self, name: str) -> str:
        self.begun.append(name)
        self.work[name] = Deferred()
        return await self.work[name]

    def end(self, *names: str) -> None:
        for name in names:
            self.work[name].callback(name)


def test_so_many_at_once_and_the_others_in_their_order() -> None:
    asked = Asked()
    asked.ask("a", "b", "c", "d")
    assert asked.begun == ["a", "b"]
    asked.end("b")
    assert asked.begun == ["a", "b", "c"]
    asked.work["a"].errback(ValueError("it failed"))
    assert asked.begun == ["a", "b", "c", "d"]
    asked.ask("other", origin="two")
    assert asked.begun[-1] == "other"
    asked.end("c", "d", "other")
    asked.clock.advance(1)
    asked.ask("later")
    assert asked.begun[-1] == "later"


def test_who_asks_too_often_waits_and_who_goes_on_is_refused() -> None:
    asked = Asked()
    for name in "abcd":
        asked.ask(name)
        asked.end(name)
    asked.ask("e")
    assert asked.begun == list("abcd")
    asked.clock.advance(0.499)
    assert asked.begun == list("abcd")
    asked.clock.advance(0.001)
    assert asked.begun == list("abcde")
    asked.end("e")
    asked.ask(*"fghijk")
    assert asked.limits.stats()["requests_waiting"] == 6
    asked.ask("l")
    (refused,) = asked.refused
    assert (refused.status, refused.errcode, refused.extra) == (429, "M_LIMIT_EXCEEDED", {"retry_after_ms": 1000})
    asked.ask("other", origin="two")
    assert asked.begun[-1] == "other"
    asked.clock.advance(0.5)
    for name in "fghijk":
        asked.end(name)
    assert asked.begun[-6:] == list("fghijk")
    assert asked.limits.stats() == {"requests_waiting": 0, "requests_delayed": 7, "requests_refused": 1}
    asked.clock.advance(1)
    asked.ask("m")
    assert asked.begun[-1] == "m"


def test_servers_that_ask_nothing_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_limits, "MAX_IDLE", 3)
    asked = Asked()
    asked.ask("busy", origin="busy")
    for name in "abc":
        asked.clock.advance(1)
        asked.ask(name, origin=name)
        asked.end(name)
    assert len(asked.limits) == 2  # who is busy, and who asks
    asked.clock.advance(0.5)
    asked.ask("d", origin="d")
    asked.ask("e", origin="e")
    assert len(asked.limits) == 4  # "c" has asked within the window
    asked.ask("again", origin="busy")
    asked.ask("third", origin="busy")
    assert asked.begun[-1] == "again"


def test_turns_are_taken_by_who_has_signed() -> None:
    asked = Asked(FederationLimits(reject_limit=1, concurrent=1))

    class Signers:
        async def authenticate(self, method: str, uri: str, headers: Any, body: bytes) -> SignedRequest:
            if headers["authorization"] == "forged":
                raise MatrixError(401, "M_UNAUTHORIZED", "Wrongly signed")
            return SignedRequest(headers["authorization"], None)

    async def handler(request: PeerRequest) -> Any:
        await asked._do(request.origin)
        return {}

    operations = [Operation("GET", "/slow", handler), Operation("GET", "/open", handler, signed=False)]
    router = Router(peer_routes(operations, Signers(), asked.limits), None, Limits({}, asked.clock.seconds))  # type: ignore[arg-type]

    def get(path: str, authorization: str) -> Any:
        return router.start(Call("GET", path, {"authorization": authorization}, b"", "192.0.2.1"))

    for _ in range(5):
        get("/slow", "forged")
    for _ in range(3):
        get("/slow", "one")
    last = get("/slow", "one")
    answer = last if isinstance(last, Answer) else last.result
    assert (asked.begun, answer.status) == (["one"], 429)
    assert answer.headers["Retry-After"]
    get("/slow", "two")
    for _ in range(20):
        get("/open", "")
    assert asked.begun == ["one", "two"] + [""] * 20
