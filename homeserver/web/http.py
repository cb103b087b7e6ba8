"""The HTTP server: connections of all listeners, their caps, deadlines and end."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall

from homeserver.web.answers import AnswerWriter
from homeserver.web.channel import HttpChannel
from homeserver.web.forwarded import TrustedProxies, parse_address
from homeserver.web.http1 import Head
from homeserver.web.router import Router


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: for a request to arrive whole, for a connection between requests, for a closed one to go
    away.
    """

    request: float = 60.0
    idle: float = 180.0
    linger: float = 2.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections there may be at once, HTTP and WebSocket together."""

    total: int = 10_000
    per_address: int = 1_000


class Upgrades(Interface):
    """Takes connections over that ask for another protocol (`homeserver.web.socket`)."""

    def wants(self, head: Head) -> bool:
        """Whether this request asks for it."""

    def take_over(self, channel: HttpChannel, head: Head, address: str, rest: bytes) -> None:
        """Take the connection, with what was read from it behind the head."""


class HttpServer:
    """What all connections share. Deadlines are kept by one coarse timer, which also renews the Date
    field.
    """

    TICK = 1.0

    def __init__(
        self,
        router: Router,
        clock: Any,
        timeouts: Timeouts = Timeouts(),
        limits: ConnectionLimits = ConnectionLimits(),
        compress_from: int | None = None,
        upgrades: Upgrades | None = None,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """`clock` is the reactor or a `twisted.internet.task.Clock`. `now_ms` gives Unix time for the Date
        field; without it answers carry none.
        """
        self.router = router
        self.start = router.start
        self.writer = AnswerWriter(compress_from)
        self.timeouts = timeouts
        self.limits = limits
        self.channels: set[HttpChannel] = set()
        self.stopping = False
        self.now = clock.seconds()
        self._clock = clock
        self._now_ms = now_ms
        self._upgrades = upgrades
        self._by_address: Counter[str] = Counter()
        self._open = 0
        self._timer = LoopingCall(self._tick)
        self._timer.clock = clock
        self._all_gone: Deferred[None] | None = None
        self._abort_call: Any = None

    # -- life

    def open(self) -> None:
        """Begin to keep time. Listeners call it before they accept."""
        if not self._timer.running:
            self._timer.start(self.TICK)

    def stop(self, within: float = 5.0) -> Deferred[None]:
        """Answer what runs, close what waits, cut the rest after `within` seconds. Fires when no connection
        is left.

        Whoever listens has to stop accepting first. The timer stops with the last connection.
        """
        self.stopping = True
        self._all_gone = done = Deferred[None]()
        self._abort_call = self._clock.callLater(within, self._abort_all)
        for channel in list(self.channels):
            channel.stop()
        self._report_if_gone()
        return done

    def _abort_all(self) -> None:
        for channel in list(self.channels):
            channel.transport.abortConnection()
            self.channels.discard(channel)
        self._report_if_gone()

    def _report_if_gone(self) -> None:
        if self._all_gone is not None and not self.channels:
            done, self._all_gone = self._all_gone, None
            if self._abort_call is not None and self._abort_call.active():
                self._abort_call.cancel()
            if self._timer.running:
                self._timer.stop()
            done.callback(None)

    def _tick(self) -> None:
        self.now = now = self._clock.seconds()
        if self._now_ms is not None:
            date = formatdate(self._now_ms() / 1000, usegmt=True)
            self.writer.date = f"Date: {date}\r\n".encode("ascii")
        overdue = [c for c in self.channels if c.deadline is not None and c.deadline <= now]
        for channel in overdue:
            channel.cut()

    # -- connections

    def admit(self, address: str, counted: bool) -> bool:
        """Count a new connection, unless there are too many. `counted`: also against its address."""
        if self.stopping or self._open >= self.limits.total:
            return False
        if counted:
            if self._by_address[address] >= self.limits.per_address:
                return False
            self._by_address[address] += 1
        self._open += 1
        return True

    def release(self, address: str, counted: bool) -> None:
        """The opposite of `admit`, once for each connection that was admitted."""
        self._open -= 1
        if counted:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def forget(self, channel: HttpChannel) -> None:
        """A channel lost its connection."""
        self.channels.discard(channel)
        self.release(channel.peer, channel.counted)
        self._report_if_gone()

    # -- requests

    def body_limit(self, head: Head) -> int:
        """Bytes of body that this request may bring."""
        return self.router.body_limit(head.method, head.target.partition("?")[0])

    def upgrade(self, channel: HttpChannel, head: Head, address: str, rest: bytes) -> bool:
        """Hand the connection over to another protocol, if this request asks for one that is served here.

        It keeps its place in the connection counts: the new owner calls `release`.
        """
        if self._upgrades is None or self.stopping or not self._upgrades.wants(head):
            return False
        self.channels.discard(channel)
        self._upgrades.take_over(channel, head, address, rest)
        return True


class HttpFactory(Factory):
    """Makes the channels of one listener."""

    noisy = False

    def __init__(self, server: HttpServer, proxies: TrustedProxies | None = None) -> None:
        """`proxies`: peers whose X-Forwarded-For is believed; None (the default) believes nobody."""
        self.server = server
        self.proxies = proxies

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """A channel, or None (the connection closes at once) over the caps. Proxies share one address: only
        the total counts for them."""
        host = getattr(addr, "host", "")
        address = parse_address(host) if host else None
        peer = str(address) if address is not None else ""
        counted = bool(peer) and not (self.proxies is not None and self.proxies.trusts(peer))
        if not self.server.admit(peer, counted):
            return None
        channel = HttpChannel(self.server, peer, self.proxies, counted)
        channel.factory = self
        return channel
