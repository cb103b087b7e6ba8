"""Rate limits: token buckets for each name and key (a user or an address), in a table of bounded size.

Pure: the clock is an argument. Names are the `rc_*` settings without their prefix (``message``,
``login.address``).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from federation.rules.errors import MatrixError


class Rate(NamedTuple):
    """`per_second` tokens (above 0) come back each second, up to `burst_count` (1 or more)."""

    per_second: float
    burst_count: float


class Limits:
    """Token buckets, each stored as one number: the moment when it will be full again.

    A full bucket and an absent one are the same, so the table forgets full ones and needs no timer.
    """

    def __init__(self, rates: Mapping[str, Rate], now: Callable[[], float], max_keys: int = 100_000) -> None:
        """`now` gives seconds that never go back. Names missing from `rates` are not limited.

        Raises ValueError for a rate that never refills or holds less than one token.
        """
        for name, rate in rates.items():
            if rate.per_second <= 0 or rate.burst_count < 1:
                raise ValueError(f"rate limit {name}: per_second above 0 and burst_count of 1 or more")
        self._rates = dict(rates)
        self._now = now
        self._max_keys = max_keys
        self._full_at: dict[tuple[str, str], float] = {}

    def __len__(self) -> int:
        """How many buckets are remembered."""
        return len(self._full_at)

    def take(self, name: str, key: str, cost: float = 1.0) -> None:
        """Take `cost` tokens, or none and raise MatrixError 429 M_LIMIT_EXCEEDED with `retry_after_ms`."""
        rate = self._rates.get(name)
        if rate is None:
            return
        now = self._now()
        full_at = self._wanted(rate, (name, key), now, cost)
        wait = full_at - rate.burst_count / rate.per_second - now
        if wait > 1e-9:  # what floating point arithmetic loses must not refuse
            raise limit_exceeded(wait)
        if len(self._full_at) >= self._max_keys:
            self._forget(now)
        self._full_at[name, key] = full_at

    def wait(self, name: str, key: str, cost: float = 1.0) -> float:
        """Seconds until `take` would succeed; 0 when it would now. Takes nothing."""
        rate = self._rates.get(name)
        if rate is None:
            return 0.0
        now = self._now()
        wait = self._wanted(rate, (name, key), now, cost) - rate.burst_count / rate.per_second - now
        return wait if wait > 1e-9 else 0.0

    def _wanted(self, rate: Rate, key: tuple[str, str], now: float, cost: float) -> float:
        """When the bucket would be full again after taking; nobody has to wait for more than it can hold."""
        return max(self._full_at.get(key, now), now) + min(cost, rate.burst_count) / rate.per_second

    def _forget(self, now: float) -> None:
        """Drop full buckets; if all are in use, the half that is nearest to full."""
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        if len(self._full_at) >= self._max_keys:
            newest = sorted(self._full_at.items(), key=lambda item: item[1], reverse=True)
            self._full_at = dict(newest[: self._max_keys // 2])


def limit_exceeded(wait_seconds: float) -> MatrixError:
    """The refusal of the specification's "Rate limiting", with the wait in milliseconds, rounded up."""
    wait_ms = max(1, int(-(-wait_seconds * 1000 // 1)))
    return MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests", retry_after_ms=wait_ms)
