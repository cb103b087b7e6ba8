"""An internet in memory: one clock, fake DNS, and a wire that loses, delays, doubles and reorders what it carries.

What the wire does is decided by one seeded source of chance, so that a run can be repeated. Servers are behind
addresses and ports with the names that their certificates are made out to; the real resolver has to find them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock

from federation.wire.discovery import Target
from federation.wire.http import CONNECT_SECONDS, ConnectFailure, HttpAnswer, HttpFailure, HttpRequest, TooLarge
from federation.wire.network import Network
from homeserver.web.call import Answer, Call
from homeserver.web.router import Router
from tests.fakes.dns import FakeDns
from tests.fakes.weather import Weather

BEGIN = 1_700_000_000.0


class Process:
    """The reactor of one run of a server. Killed, nothing of that run happens any more, and nothing that it waits for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.alive = True
        self.under_way = 0
        """Requests to others that it waits for."""
        self.unanswered: dict[Deferred[HttpAnswer], None] = {}
        """Requests of others that it works on."""

    def die(self) -> None:
        """Stop dead. Whoever waits for an answer sees the connection close, on their own turn."""
        self.alive = False
        for answered in self.unanswered:
            self._clock.callLater(0, _close, answered)

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(self, delay: float, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def unless_dead() -> None:
            if self.alive:
                call(*args, **kwargs)

        return self._clock.callLater(max(0.0, delay), unless_dead)

    def callFromThread(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.callLater(0, call, *args, **kwargs)


@dataclass
class Host:
    """A server behind an address: what its certificate says, and who answers (nobody while it is down)."""

    name: str
    certificate: set[str]
    process: Process | None = None
    router: Router | None = None


class Internet:
    """Everybody's clock, names and wire."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(BEGIN)
        self.weather = Weather(self.chance)
        self.dns = FakeDns()
        self.hosts: dict[Target, Host] = {}
        self.cut: set[frozenset[str]] = set()
        """Pairs of server names between which nothing comes through."""
        self.requests: list[tuple[str, str, str, str]] = []
        """(origin, destination, method, path) of every request that was made."""

    def network(self, name: str, process: Process) -> Network:
        """The way out of one run of a server."""

        async def close() -> None:
            """Nothing is kept."""

        return Network(self.dns, Wire(self, name, process), close)

    def apart(self, one: str, other: str) -> bool:
        """Whether the wire between two servers is cut."""
        return frozenset((one, other)) in self.cut

    def step(self) -> None:
        """Let time pass up to the next thing that is due."""
        calls = self.clock.calls
        self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()) if calls else 1.0)

    def due(self) -> bool:
        """Whether something is to happen without time passing."""
        calls = self.clock.calls
        return bool(calls) and calls[0].getTime() <= self.clock.seconds()

    def run(self, work: "Deferred[Any]", seconds: float = 600.0) -> Any:
        """Let time pass until the work is done."""
        results: list[Any] = []
        work.addBoth(results.append)
        end = self.clock.seconds() + seconds
        while not results and self.clock.seconds() < end:
            self.step()
        if not results:
            raise AssertionError("the work does not end")
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]


class Wire:
    """`federation.wire.http.Http` of one run of a server."""

    def __init__(self, internet: Internet, name: str, process: Process) -> None:
        self._internet = internet
        self._name = name
        self._process = process

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        """One request, there and back."""
        internet = self._internet
        self._process.under_way += 1
        try:
            host = await self._connect(request.target, request.tls_name)
            internet.requests.append((self._name, host.name, request.method, request.path.partition("?")[0]))
            fields = {"host": request.host_header, **{key.lower(): value for key, value in request.headers.items()}}
            done: Deferred[HttpAnswer] = Deferred()

            def deliver(answered: "Deferred[HttpAnswer] | None") -> None:
                call = Call(request.method, request.path, fields, request.body or b"", "192.0.2.7")
                self._deliver(host, call, answered)

            weather = internet.weather
            if not weather.lost():
                internet.clock.callLater(weather.wait(), deliver, done)
                if request.method != "POST" and weather.doubled():  # tried a second time by who got no answer to the first
                    internet.clock.callLater(weather.wait() + weather.wait(), deliver, None)
            try:
                answer = await done.addTimeout(seconds, self._process)  # type: ignore[arg-type]
            except (TimeoutError, CancelledError):
                raise HttpFailure(f"no answer within {seconds:g} seconds") from None
            if len(answer.body) > max_bytes:
                raise TooLarge("the answer is larger than allowed")
            return answer
        finally:
            self._process.under_way -= 1

    async def _connect(self, target: Target, tls_name: str) -> Host:
        internet = self._internet
        addresses = await internet.dns.addresses(target.host) or [target.host]
        host = internet.hosts.get(Target(addresses[0], target.port))
        if host is None or host.router is None:
            raise ConnectFailure(f"nobody at {target.host} port {target.port}")
        if internet.apart(self._name, host.name):
            waited: Deferred[None] = Deferred()
            self._process.callLater(CONNECT_SECONDS, waited.callback, None)
            await waited
            raise ConnectFailure(f"{target.host} does not answer")
        if tls_name not in host.certificate:
            raise HttpFailure(f"the certificate of {target.host} is not made out to {tls_name}")
        return host

    def _deliver(self, host: Host, call: Call, answered: "Deferred[HttpAnswer] | None") -> None:
        """The request comes through, or it does not; ``answered`` None for a copy whose answer nobody reads."""
        internet, process = self._internet, host.process
        if internet.apart(self._name, host.name):
            return
        if host.router is None or process is None:
            self._broken(answered)
            return
        if answered is not None:
            process.unanswered[answered] = None
        outcome = host.router.start(call)
        if isinstance(outcome, Answer):
            self._answer(host, outcome, answered)
        else:
            outcome.addCallback(lambda found: self._answer(host, found, answered))

    def _answer(self, host: Host, found: Answer, answered: "Deferred[HttpAnswer] | None") -> None:
        if answered is None:
            return
        assert host.process is not None
        host.process.unanswered.pop(answered, None)
        content = HttpAnswer(found.status, dict(found.headers or {}), found.encoded())

        def back() -> None:
            if self._process.alive and not answered.called and not self._internet.apart(self._name, host.name):
                answered.callback(content)

        if not self._internet.weather.lost():
            self._internet.clock.callLater(self._internet.weather.wait(), back)

    def _broken(self, answered: "Deferred[HttpAnswer] | None") -> None:
        if answered is not None and self._process.alive:
            _close(answered)


def _close(answered: "Deferred[HttpAnswer]") -> None:
    """The connection closes before the answer."""
    if not answered.called:
        answered.errback(HttpFailure("the connection closed"))
