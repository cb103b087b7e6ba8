"""Keeping the number of a room's heads small: when too many branches stay open, an event that nobody sees ties them up.

Resolving the state over many heads costs every reader and writer of the room, here and elsewhere; a server whose users are
silent would let them grow without end. While a transaction comes in there are never more heads than one event can name, so
that the state before an event of ours is that of the events which it names. Heads are named oldest first: how deep an event
says that it is, or how many its sender makes, keeps nobody else's waiting.
"""

from federation.rules.errors import MatrixError
from homeserver.rooms.append import asks_first
from homeserver.rooms.room import MAX_PREV_EVENTS, Draft, Rooms
from storage.log import events as event_log

MAX_HEADS = 10
MAX_TRIES = 20
"""Local members who are tried as the sender; most rooms let any of them."""

DUMMY = "org.matrix.dummy_event"


class Extremities:
    """Watches the heads of rooms that receive events."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def make_way(self, room_id: str) -> bool:
        """Tie up the heads of a room if one event can name no more of them: between two events that come in.

        False where nobody of this server can: asking again soon would be in vain.
        """
        return not self._has_more_than(MAX_PREV_EVENTS - 1, room_id) or await self._tie_up(room_id)

    async def tidy(self, room_id: str) -> None:
        """Tie up the heads of a room if there are too many and somebody of this server may send."""
        while self._has_more_than(MAX_HEADS, room_id) and await self._tie_up(room_id):
            pass

    def _has_more_than(self, most: int, room_id: str) -> bool:
        room = self._rooms.find(room_id)
        return room is not None and len(room.meta.extremities) > most

    async def _tie_up(self, room_id: str) -> bool:
        """Send one event that names as many heads as it can; whether anybody could."""
        room = self._rooms.get(room_id)
        for count, user_id in enumerate(room.local_joined()):
            if count >= MAX_TRIES:
                return False
            draft = Draft(user_id, DUMMY, {})
            try:
                event = room.decide(draft)
            except MatrixError:
                continue
            if self._rooms.policed is not None and asks_first(self._rooms, room, draft):
                heads = room.meta.extremities
                try:
                    event = await self._rooms.policed.sign(room, event)
                except MatrixError:
                    return False  # to the others it would be soft-failed, and tie up nothing
                room = self._rooms.get(room_id)
                if room.meta.extremities != heads:
                    return False
            batch = self._rooms.log.begin()
            room.stage(batch, event, flags=event_log.SOFT_FAILED)
            await self._rooms.log.append(batch)
            return True
        return False
