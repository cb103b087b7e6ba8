"""For how long a server is not asked for its keys again."""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MIN_RETRY_MS = 10_000
MAX_RETRY_MS = 60 * 60_000
FREE_FETCHES = 5
"""Times that a server which is there is asked with nothing new in its answer before there are waits."""
GONE_MS = 5 * 60_000
"""A server that has been silent for so long is not counted on any more."""
MAX_SERVERS = 20_000
"""Servers that are remembered; anybody can name more. The one asked longest ago is forgotten."""


class _Wait(NamedTuple):
    retry_at: int
    interval: int
    free: int
    silent_since: int | None


class KeyWaits:
    """The waits of every server that was asked. They go by a steady clock (ms, see `federation.wire.steady_time`)."""

    def __init__(self, steady_ms: Callable[[], int]) -> None:
        self._now = steady_ms
        self._waits: OrderedDict[str, _Wait] = OrderedDict()

    def may_ask(self, server_name: str) -> bool:
        """Whether the server may be asked now."""
        wait = self._waits.get(server_name)
        return wait is None or wait.retry_at <= self._now()

    def is_away(self, server_name: str) -> bool:
        """Whether the server has not answered, and not for long yet: what it has may be had in a while."""
        wait = self._waits.get(server_name)
        return wait is not None and wait.silent_since is not None and self._now() < wait.silent_since + GONE_MS

    def asked(self, server_name: str, *, silent: bool, news: bool) -> None:
        """The server was asked: whether it was ``silent``, and whether anything new is known of its keys since.

        It is asked again only after a while, also when it answers without anything new: what it lacks it lacks.
        """
        now = self._now()
        wait = self._waits.get(server_name)
        if wait is None or news:
            wait = _Wait(0, MIN_RETRY_MS // 2, FREE_FETCHES, None if wait is None else wait.silent_since)
        if not silent and wait.free:
            wait = wait._replace(free=wait.free - 1)
        else:
            interval = min(wait.interval * 2, MAX_RETRY_MS)
            wait = wait._replace(retry_at=now + interval, interval=interval)
        since = None if not silent else now if wait.silent_since is None else wait.silent_since
        self._waits[server_name] = wait._replace(silent_since=since)
        self._waits.move_to_end(server_name)
        if len(self._waits) > MAX_SERVERS:
            self._waits.popitem(last=False)
