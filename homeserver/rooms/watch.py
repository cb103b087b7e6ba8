"""Waiting for the next event of one room, for readers who are not in it and whom the feed therefore does not wake."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from storage.log.append import Entry, Kind

MAX_WATCHERS = 10_000


class RoomWatch:
    """Follows the feed and wakes whoever waits for a room."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, set[Deferred[None]]] = {}
        self._count = 0

    def follow(self, entries: Sequence[Entry]) -> None:
        """Wake those whose room has a new event. A follower of the feed."""
        if not self._waiting:
            return
        for room_id in {entry.room_id for entry in entries if entry.kind == Kind.EVENT}:
            for waiter in self._waiting.pop(room_id, ()):
                self._count -= 1
                self._clock.callLater(0, _wake, waiter)

    def wait(self, room_id: str, timeout: float) -> "Deferred[None]":
        """Fires at the room's next event or after ``timeout`` seconds, at once if too many wait already.

        Cancelling it ends the wait.
        """
        waiter: Deferred[None] = Deferred(lambda _: self._forget(room_id, waiter))
        if self._count >= MAX_WATCHERS:
            waiter.callback(None)
            return waiter
        self._waiting.setdefault(room_id, set()).add(waiter)
        self._count += 1
        timer = self._clock.callLater(max(0.0, timeout), self._expire, room_id, waiter)

        def ended(result: object) -> object:
            if timer.active():
                timer.cancel()
            return result

        waiter.addBoth(ended)
        return waiter

    def _expire(self, room_id: str, waiter: "Deferred[None]") -> None:
        self._forget(room_id, waiter)
        _wake(waiter)

    def _forget(self, room_id: str, waiter: "Deferred[None]") -> None:
        waiters = self._waiting.get(room_id)
        if waiters is not None and waiter in waiters:
            waiters.discard(waiter)
            self._count -= 1
            if not waiters:
                del self._waiting[room_id]


def _wake(waiter: "Deferred[None]") -> None:
    if not waiter.called:
        waiter.callback(None)
