"""Who is typing where: in memory, with an end to every notification.

Specification: Client-Server API, module "Typing Notifications". A room has one list of typing users; clients get
the whole list whenever it changes. Changes that come in quick succession are merged into one.
"""

from collections.abc import Callable

import orjson
from twisted.internet.interfaces import IDelayedCall, IReactorTime

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 120_000
MAX_TYPING_IN_ROOM = 200
MAX_TYPING = 20_000
MERGE_SECONDS = 0.2
"""A room's list is announced at most once in this time: bursts become one change."""


class _Room:
    __slots__ = ("body", "dirty", "pending", "turns")

    def __init__(self) -> None:
        self.turns: dict[str, IDelayedCall] = {}
        self.dirty = False
        self.pending: IDelayedCall | None = None
        self.body: bytes | None = None


class Typing:
    """The typing users of every room. ``announce(room_id)`` gives a change its position in the log."""

    def __init__(self, clock: IReactorTime, announce: Callable[[str], None]) -> None:
        self._clock = clock
        self._announce = announce
        self._rooms: dict[str, _Room] = {}
        self._total = 0

    def start(self, room_id: str, user_id: str, timeout_ms: int = DEFAULT_TIMEOUT_MS) -> None:
        """A user types in a room, until ``timeout_ms`` from now (at most two minutes) unless they say so again.

        Past the bounds on typing users the notification is dropped: it is a courtesy, not history.
        """
        seconds = min(max(timeout_ms, 1), MAX_TIMEOUT_MS) / 1000
        room = self._rooms.get(room_id)
        if room is None:
            if self._total >= MAX_TYPING:
                return
            room = self._rooms[room_id] = _Room()
        timer = room.turns.get(user_id)
        if timer is not None:
            timer.reset(seconds)
            return
        if len(room.turns) >= MAX_TYPING_IN_ROOM or self._total >= MAX_TYPING:
            return
        room.turns[user_id] = self._clock.callLater(seconds, self.stop, room_id, user_id)
        self._total += 1
        self._changed(room_id, room)

    def stop(self, room_id: str, user_id: str) -> None:
        """A user stopped typing, left the room, or their time ran out."""
        room = self._rooms.get(room_id)
        timer = room.turns.pop(user_id, None) if room is not None else None
        if room is None or timer is None:
            return
        if timer.active():
            timer.cancel()
        self._total -= 1
        self._changed(room_id, room)

    def users(self, room_id: str) -> list[str]:
        """Who is typing in a room now."""
        room = self._rooms.get(room_id)
        return list(room.turns) if room is not None else []

    def event(self, room_id: str) -> bytes:
        """The ``m.typing`` event of a room as JSON bytes, built once for each change."""
        room = self._rooms.get(room_id)
        if room is None:
            return _event([])
        if room.body is None:
            room.body = _event(list(room.turns))
        return room.body

    def _changed(self, room_id: str, room: _Room) -> None:
        room.body = None
        room.dirty = True
        if room.pending is None:
            self._flush(room_id, room)

    def _flush(self, room_id: str, room: _Room) -> None:
        """Announce what changed and look again after the merge window; forget a room where nothing goes on."""
        room.pending = None
        if room.dirty:
            room.dirty = False
            room.pending = self._clock.callLater(MERGE_SECONDS, self._flush, room_id, room)
            self._announce(room_id)
        elif not room.turns:
            self._rooms.pop(room_id, None)


def _event(users: list[str]) -> bytes:
    return orjson.dumps({"type": "m.typing", "content": {"user_ids": users}})

