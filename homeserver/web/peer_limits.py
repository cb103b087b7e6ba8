"""How much one other server may ask of this one (`rc_federation`).

Who asks more often than `sleep_limit` times within `window_size` waits `sleep_delay` before each further request;
`concurrent` requests are worked on at once, the next ones in their order; and when `reject_limit` of them wait, more are
refused with 429 M_LIMIT_EXCEEDED. Servers do not get in each other's way.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from config.schema import FederationLimits
from homeserver.web.limits import limit_exceeded

T = TypeVar("T")

MAX_IDLE = 1_000
"""Servers remembered that ask nothing just now; beyond that, those are forgotten whose window is over."""


class _Peer:
    __slots__ = ("queue", "recent", "running", "waiting")

    def __init__(self) -> None:
        self.recent: deque[float] = deque()
        """When the last requests came, `sleep_limit` of them at most."""
        self.queue: deque[Deferred[None]] = deque()
        self.waiting = 0
        """Requests that sleep or stand in the queue."""
        self.running = 0


class PeerLimits:
    """Turns of other servers. ``clock`` is the reactor or a ``Clock``."""

    def __init__(self, settings: FederationLimits, clock: Any) -> None:
        self._settings = settings
        self._clock = clock
        self._window = settings.window_size / 1000
        self._delay = settings.sleep_delay / 1000
        self._peers: dict[str, _Peer] = {}
        self.delayed = 0
        """Requests that had to sleep since the start (for metrics)."""
        self.refused = 0

    def __len__(self) -> int:
        """How many servers are remembered."""
        return len(self._peers)

    def stats(self) -> dict[str, int]:
        """Numbers for the metrics."""
        waiting = sum(peer.waiting for peer in self._peers.values())
        return {"requests_waiting": waiting, "requests_delayed": self.delayed, "requests_refused": self.refused}

    async def in_turn(self, origin: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work when it is the server's turn. Raises MatrixError 429, and what the work raises."""
        peer = self._peers.get(origin)
        if peer is None:
            peer = self._add(origin)
        if peer.waiting >= self._settings.reject_limit:
            self.refused += 1
            raise limit_exceeded(max(self._delay, self._window))
        if self._is_too_often(peer):
            self.delayed += 1
            await self._wait(peer, deferLater(self._clock, self._delay))
        if peer.running >= self._settings.concurrent:
            turn: Deferred[None] = Deferred()
            peer.queue.append(turn)
            await self._wait(peer, turn)  # whoever ends hands its place on: `running` stays
        else:
            peer.running += 1
        try:
            return await work()
        finally:
            if peer.queue:
                peer.queue.popleft().callback(None)
            else:
                peer.running -= 1

    async def _wait(self, peer: _Peer, until: "Deferred[None]") -> None:
        peer.waiting += 1
        try:
            await until
        finally:
            peer.waiting -= 1

    def _is_too_often(self, peer: _Peer) -> bool:
        now = self._clock.seconds()
        recent = peer.recent
        while recent and recent[0] <= now - self._window:
            recent.popleft()
        often = len(recent) >= self._settings.sleep_limit
        if often and recent:
            recent.popleft()
        recent.append(now)
        return often

    def _add(self, origin: str) -> _Peer:
        if len(self._peers) >= MAX_IDLE:
            ended = self._clock.seconds() - self._window
            self._peers = {
                name: peer
                for name, peer in self._peers.items()
                if peer.running or peer.waiting or peer.recent[-1] > ended
            }
        peer = self._peers[origin] = _Peer()
        return peer
