"""What follows when another state becomes a room's current one: cached picture, members' index rows, counts of members."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import orjson
from msgspec import structs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.event import Event
from homeserver.rooms.notes import EventNote, MembersMoved
from homeserver.rooms.room import Room, Rooms, StateKey
from homeserver.rooms.servers import Servers
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Batch, Kind

MEMBER = "m.room.member"
PART = 200
"""Members that change in one turn of the reactor, about six milliseconds."""

Change = tuple[StateKey, str | None, str | None]
"""A piece of state, the id of its event before and after."""


class Move(NamedTuple):
    """A member whose membership changes with the state."""

    user_id: str
    before: str | None
    after: str | None
    event_id: str | None
    """Of the new member event."""


class CurrentState:
    """Changes rooms' current states."""

    def __init__(self, rooms: Rooms, servers: Servers, clock: IReactorTime) -> None:
        self._rooms = rooms
        self._servers = servers
        self._clock: Any = clock

    def adopt(
        self, batch: Batch, room: Room, current: bytes, event: Event, note: EventNote | None, position: int
    ) -> room_log.RoomMeta:
        """Make ``current`` the room's state, ``event`` being the one that has led to it.

        Returns the room's row with state and counts; fills in the note when the event itself changed a membership.
        """
        if current == room.meta.state_root:
            return room.meta

        def moved(move: Move) -> int:
            if note is not None and move.event_id == event.event_id:
                note.target, note.prev_membership, note.membership = move.user_id, move.before, move.after
            else:
                batch.entry(Kind.MEMBERSHIP, room_id=room.room_id, user_id=move.user_id)
            return position

        return self._change(batch, room, current, room.state_map.diff(room.meta.state_root, current), moved, event)

    async def approach(self, room_id: str, changes: Iterable[Change], *, announced: bool) -> None:
        """Change members of a room a part at a time, so that a change of tens of thousands does not hold others up.

        Each part makes a current state of its own: whoever stops in between goes on with what is left. A piece of state
        that has become another one meanwhile is left as it is. ``announced``: users of this server are told who moved.
        """
        left = iter(changes)
        root = self._rooms.get(room_id).meta.state_root
        while part := list(islice(left, PART)):
            room = self._rooms.get(room_id)
            if room.meta.state_root != root:
                part = [change for change in part if room.state_map.get(room.meta.state_root, *change[0]) == change[1]]
            batch = self._rooms.log.begin()
            try:
                root = room.change_state(batch, room.meta.state_root, {key: new for key, _, new in part})
                room.meta = self._change(batch, room, root, part, self._moved(batch, room_id, announced))
                room_log.put_room(batch, room.meta)
            except BaseException:
                self._rooms.drop(room_id)
                raise
            self._rooms.log.append(batch).addErrback(lambda _: None)
            self._servers.of(room)  # carried on with each part: counting all at the end would take as long as all parts
            await deferLater(self._clock, 0)

    def _moved(self, batch: Batch, room_id: str, announced: bool) -> Callable[[Move], int]:
        if announced:
            return lambda move: batch.entry(Kind.MEMBERSHIP, room_id=room_id, user_id=move.user_id)
        note = MembersMoved()
        position = batch.entry(Kind.ROOM, room_id=room_id, note=note)

        def moved(move: Move) -> int:
            note.users.append(move.user_id)
            return position

        return moved

    def _change(
        self,
        batch: Batch,
        room: Room,
        current: bytes,
        changes: Iterable[Change],
        moved: Callable[[Move], int],
        event: Event | None = None,
    ) -> room_log.RoomMeta:
        """``moved`` is told of each member who moves, and gives the position at which they do."""
        joined, invited = room.meta.joined, room.meta.invited
        for key, old_id, new_id in changes:
            room.forget_state(key)
            if key[0] != MEMBER:
                continue
            old, old_sender = self._member(old_id, event)
            new, sender = self._member(new_id, event)
            joined += (new == "join") - (old == "join")
            invited += (new == "invite") - (old == "invite")
            record = room_log.MembershipRecord(
                room.room_id,
                new or "leave",
                moved(Move(key[1], old, new, new_id)),
                new_id or old_id or "",
                sender or old_sender or key[1],
            )
            room_log.put_membership(batch, key[1], record)
        return structs.replace(room.meta, state_root=current, joined=joined, invited=invited)

    def _member(self, event_id: str | None, event: Event | None) -> tuple[str | None, str | None]:
        """Membership and sender of a member event: ``event``, which may not be stored yet, or a stored one."""
        if event_id is None:
            return None, None
        if event is not None and event_id == event.event_id:
            membership, sender = event.content.get("membership"), event.sender
        else:
            record = event_log.event_by_id(self._rooms.log, event_id)
            if record is None:
                return None, None
            membership, sender = orjson.loads(record.content_json).get("membership"), record.sender
        return membership if isinstance(membership, str) else None, sender
