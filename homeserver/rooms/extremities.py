"""Keeping the number of a room's heads small: when too many branches stay open, an event that nobody sees ties them up.

Resolving the state over many heads costs every reader and writer of the room, here and elsewhere; a server whose users are
silent would let them grow without end.
"""

from federation.rules.errors import MatrixError
from homeserver.rooms.append import asks_first
from homeserver.rooms.room import Draft, Rooms
from storage.log import events as event_log

MAX_HEADS = 10
MAX_TRIES = 20
"""Local members who are tried as the sender; most rooms let any of them."""

DUMMY = "org.matrix.dummy_event"


class Extremities:
    """Watches the heads of rooms that receive events."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    async def tidy(self, room_id: str) -> None:
        """Tie up the heads of a room if there are too many and somebody of this server may send."""
        room = self._rooms.find(room_id)
        if room is None or len(room.meta.extremities) <= MAX_HEADS:
            return
        for count, user_id in enumerate(room.local_joined()):
            if count >= MAX_TRIES:
                return
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
                    return  # to the others it would be soft-failed, and tie up nothing
                room = self._rooms.get(room_id)
                if room.meta.extremities != heads:
                    return
            batch = self._rooms.log.begin()
            room.stage(batch, event, flags=event_log.SOFT_FAILED)
            await self._rooms.log.append(batch)
            return
