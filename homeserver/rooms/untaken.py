"""Events that could not be placed when they came, because what is before them could not be had, or the key of who signed
them: tried again later.

To its sender an event is delivered once its transaction is answered, whatever the answer says of it. Without another try it
would be missing here until some later event cites it.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

FIRST_SECONDS = 60.0
TRIES = 7
"""After 1, 2, 4, 8, 16, 32 and 64 minutes."""
KEPT = 5
"""Of one server in one room; the newest lead to those before them."""
MAX_PLACES = 1_000
"""Servers in rooms. The longest waiting ones are given up for new ones."""

_report = Logger()
Place = tuple[str, str]
"""A server, and a room's id."""


class _Waiting:
    __slots__ = ("pdus", "timer", "tries")

    def __init__(self) -> None:
        self.pdus: OrderedDict[str, Any] = OrderedDict()
        self.tries = 0
        self.timer: IDelayedCall | None = None


class Untaken:
    """What waits for another try, in memory: after a restart later events lead to it."""

    def __init__(self, clock: IReactorTime, take: Callable[[str, str, Sequence[Any]], Awaitable[Any]]) -> None:
        """``take`` receives events (origin, room id, PDUs) and calls `keep` for those that cannot be placed again."""
        self._clock = clock
        self._take = take
        self._places: OrderedDict[Place, _Waiting] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Servers in rooms with something to be tried again."""
        return len(self._places)

    def keep(self, origin: str, room_id: str, event_id: str, pdu: Any) -> None:
        """Try this event again later."""
        place = (origin, room_id)
        waiting = self._places.get(place)
        if waiting is None:
            waiting = self._places[place] = _Waiting()
            if len(self._places) > MAX_PLACES:
                self._forget(next(iter(self._places)))
        waiting.pdus[event_id] = pdu
        if len(waiting.pdus) > KEPT:
            waiting.pdus.popitem(last=False)
        if waiting.timer is None:
            self._arm(place, waiting)

    def placed(self, origin: str, room_id: str, event_id: str) -> None:
        """This event has its place."""
        waiting = self._places.get((origin, room_id))
        if waiting is not None:
            waiting.pdus.pop(event_id, None)
            if not waiting.pdus:
                self._forget((origin, room_id))

    def stop(self) -> None:
        """Try nothing more."""
        for place in list(self._places):
            self._forget(place)

    def _arm(self, place: Place, waiting: _Waiting) -> None:
        waiting.timer = self._clock.callLater(FIRST_SECONDS * 2**waiting.tries, self._again, place, waiting)

    def _again(self, place: Place, waiting: _Waiting) -> None:
        waiting.tries += 1
        trying = Deferred.fromCoroutine(_awaited(self._take(*place, list(waiting.pdus.values()))))
        trying.addErrback(lambda failure: _report.failure("events of {place} tried again", failure, place=place))
        trying.addCallback(lambda _: self._tried(place, waiting))

    def _tried(self, place: Place, waiting: _Waiting) -> None:
        waiting.timer = None
        if self._places.get(place) is not waiting:
            return
        if waiting.tries >= TRIES:
            _report.info("{count} events of {place} are given up", count=len(waiting.pdus), place=place)
            self._forget(place)
        else:
            self._arm(place, waiting)

    def _forget(self, place: Place) -> None:
        timer = self._places.pop(place).timer
        if timer is not None and timer.active():
            timer.cancel()


async def _awaited(work: Awaitable[Any]) -> None:
    await work
