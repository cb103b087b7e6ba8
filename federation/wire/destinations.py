"""Back-off of destinations, in memory: for how long to leave a server alone that does not answer.

Grows from ``min_interval`` by ``multiplier`` up to ``max_interval``, with jitter so that a thousand servers that went
away together are not all tried in the same second. Any sign of life ends it. ``on_change`` is told of every change, for
whoever keeps it durable; ``restore`` takes that back.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

MAX_SERVERS = 10_000
"""Servers in trouble that are remembered; anybody can name more. The one that failed longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """A server in trouble. Times in milliseconds since the epoch, ``interval`` in milliseconds."""

    failing_since: int
    retry_at: int
    interval: int
    reason: str


class InMemoryDestinations:
    """The back-off of every server that has one."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        random: Callable[[], float],
        min_interval: int,
        multiplier: float,
        max_interval: int,
    ) -> None:
        """``now_ms`` is a steady clock (`federation.wire.steady_time`), ``random`` gives numbers in [0, 1)."""
        self._now_ms = now_ms
        self._random = random
        self._min = min_interval
        self._multiplier = multiplier
        self._max = max_interval
        self._backing_off: dict[str, BackOff] = {}
        self.on_change: Callable[[str, BackOff | None], None] | None = None

    def refused_until(self, server_name: str) -> int | None:
        """When to try again, None for now."""
        back_off = self._backing_off.get(server_name)
        return back_off.retry_at if back_off is not None and back_off.retry_at > self._now_ms() else None

    def state_of(self, server_name: str) -> BackOff | None:
        """The back-off of a server, None when it is well."""
        return self._backing_off.get(server_name)

    def succeeded(self, server_name: str) -> None:
        """A sign of life."""
        if self._backing_off.pop(server_name, None) is not None and self.on_change is not None:
            self.on_change(server_name, None)

    def failed(self, server_name: str, reason: str) -> None:
        """One more failure. Several requests that were under way together count as one."""
        now = self._now_ms()
        before = self._backing_off.get(server_name)
        if before is not None and before.retry_at > now:
            return
        interval = self._min
        if before is not None:
            interval = min(int(before.interval * self._multiplier), self._max)
        wait = int(interval * (0.8 + 0.4 * self._random()))
        since = now if before is None else before.failing_since
        back_off = BackOff(since, now + wait, interval, reason)
        self._backing_off.pop(server_name, None)
        self._backing_off[server_name] = back_off
        if self.on_change is not None:
            self.on_change(server_name, back_off)
        if len(self._backing_off) > MAX_SERVERS:
            self.succeeded(next(iter(self._backing_off)))

    def restore(self, server_name: str, back_off: BackOff) -> None:
        """Take over what was kept before a restart.

        One that was written down while the wall clock went ahead is no longer than any other.
        """
        longest = self._now_ms() + int(back_off.interval * 1.2)
        self._backing_off[server_name] = replace(back_off, retry_at=min(back_off.retry_at, longest))
