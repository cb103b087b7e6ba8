"""One after the other: work that has to wait for what was begun before it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import DeferredLock

from federation.rules.errors import MatrixError

MAX_WAITING = 100
"""Pieces of work that wait for one key; more are refused, whoever wants them will come again."""

T = TypeVar("T")


class Turns:
    """Keys with work, each in its order; keys do not wait for each other."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    async def take(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work` while nobody else with the same key does. MatrixError 429 when too many wait."""
        queue = self._queues.setdefault(key, _Queue())
        if queue.waiting >= MAX_WAITING:
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "Too much is waiting for this room", retry_after_ms=5000)
        queue.waiting += 1
        try:
            await queue.lock.acquire()
            try:
                return await work()
            finally:
                queue.lock.release()
        finally:  # also for those who gave up waiting
            queue.waiting -= 1
            if not queue.waiting:
                self._queues.pop(key, None)


class _Queue:
    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = DeferredLock()
        self.waiting = 0
