"""Ends of many waits, kept by one timer: a timer of the reactor for each would cost more than the wait itself."""

from collections.abc import Callable
from math import ceil
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

STEPS = 10
"""Steps in a second. A wait ends up to one step late, never early."""


class Limited(Protocol):
    """Something that ends at ``deadline`` (seconds of the clock)."""

    deadline: float


class Deadlines:
    """Calls ``expire`` for each item whose deadline has passed, unless it was removed before."""

    def __init__(self, clock: IReactorTime, expire: Callable[[Any], None]) -> None:
        self._clock = clock
        self._expire = expire
        self._steps: dict[int, set[Limited]] = {}
        self._timer: Any = None
        self._next = 0
        """The step that the timer is set for."""

    def add(self, item: Limited) -> None:
        """Watch an item. Its deadline must not change until it is removed."""
        step = ceil(item.deadline * STEPS)
        items = self._steps.get(step)
        if items is not None:
            items.add(item)
            return
        self._steps[step] = {item}
        if self._timer is None or step < self._next:
            self._set_timer(step)

    def remove(self, item: Limited) -> None:
        """Watch an item no more; nothing if it was not watched."""
        step = ceil(item.deadline * STEPS)
        items = self._steps.get(step)
        if items is None:
            return
        items.discard(item)
        if not items:
            del self._steps[step]
            if not self._steps:
                self._set_timer(None)

    def _set_timer(self, step: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if step is not None:
            self._next = step
            self._timer = self._clock.callLater(max(0.0, step / STEPS - self._clock.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.seconds() * STEPS
        for step in sorted(step for step in self._steps if step <= now):
            for item in self._steps.pop(step):
                self._expire(item)
        if self._steps and self._timer is None:
            self._set_timer(min(self._steps))
