"""Entering a room that other servers hold: its state and auth chain are taken in, then the member event that brought us in.

Server-Server API, "Joining Rooms" (what is returned by send_join). The room is made, or continued where this server had been
in it before; what it was told is judged by the rules like anything else.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from federation.rules.auth import check_auth
from federation.rules.auth_events import CREATE
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.room_versions import RoomVersion
from homeserver.rooms.current_state import MEMBER, CurrentState
from homeserver.rooms.notes import EventNote
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.place import MAX_BACKWARD, Place
from homeserver.rooms.room import Room, Rooms, stored_form
from homeserver.rooms.state_at import States
from homeserver.rooms.told import ToldStates
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Kind
from storage.log.partial_joins import PartialJoin, given_up, put_partial_join


class Enter:
    """Takes rooms in that were joined through another server."""

    def __init__(
        self, rooms: Rooms, states: States, told: ToldStates, outliers: Outliers, place: Place, current: CurrentState
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._told = told
        self._outliers = outliers
        self._place = place
        self._current_state = current
        self.on_partial: Callable[[PartialJoin], None] = lambda join: None
        """Told of a room whose state is to be completed."""

    async def enter(
        self,
        version: RoomVersion,
        join: Event,
        state: Sequence[msgspec.Raw],
        auth_chain: Sequence[msgspec.Raw],
        partial: PartialJoin | None = None,
    ) -> None:
        """Take a room in: the state before ``join``, unchecked, and its auth chain. Durable when it returns.

        ``partial`` is given when members were omitted from the state: they are fetched later. Raises MatrixError 502 when
        what was sent does not make the room that was asked for, 403 when its rules do not let the join in.
        """
        room_id = join.room_id
        room = await self._open(room_id, version, await self._create(version, room_id, state))
        ids = await self._told.take(room, state, auth_chain, without=join.event_id)
        before = await self._outliers.state_of(room, ids)
        room = self._rooms.get(room_id)
        if partial is not None:
            before = self._with_cited_members(room, join, before)
        auth_state = self._states.auth_state(room, before, join)
        if CREATE not in auth_state:
            raise MatrixError(502, "M_UNKNOWN", "The state that was sent lacks the create event")
        check_auth(join, auth_state)
        await self._approach(room, before)
        await self._append(self._rooms.get(room_id), join, before, partial)
        if partial is not None:
            self.on_partial(partial)

    async def _approach(self, room: Room, before: bytes) -> None:
        """Nearly all of a large room's state are members from elsewhere: theirs first, in small steps.

        Nobody here is told of them one by one, as nobody is in the room yet.
        """
        own = f":{self._rooms.server_name}"
        elsewhere = (
            change
            for change in room.state_map.diff(room.meta.state_root, before)
            if change[0][0] == MEMBER and not change[0][1].endswith(own)
        )
        await self._current_state.approach(room.room_id, elsewhere, announced=False)

    def _with_cited_members(self, room: Room, join: Event, before: bytes) -> bytes:
        """Who invited, or vouches, is not among the members that were told, but in the auth chain."""
        cited = [event for id_ in join.auth_event_ids if (event := self._rooms.event(id_)) is not None]
        batch = self._rooms.log.begin()
        root = self._place.with_cited_members(batch, room, cited, before)
        self._rooms.log.append(batch).addErrback(lambda _: None)
        return root

    async def _create(self, version: RoomVersion, room_id: str, state: Sequence[msgspec.Raw]) -> Event:
        for create in await self._told.creates(state, version, room_id):
            if create.content.get("room_version", "1") == version.id:
                return create
        raise MatrixError(502, "M_UNKNOWN", "The state that was sent does not begin with a create event of this room")

    async def _open(self, room_id: str, version: RoomVersion, create: Event) -> Room:
        self._rooms.check_open(room_id)
        room = self._rooms.find(room_id)
        if room is not None:
            return room
        batch = self._rooms.log.begin()
        nid = batch.entry(Kind.ROOM, room_id=room_id)
        federated = create.content.get("m.federate") is not False
        meta = room_log.RoomMeta(
            room_id=room_id, nid=nid, version=version.id, creator=create.sender, federated=federated
        )
        room_log.create_room(batch, meta)
        room = self._rooms.add(Room(self._rooms, meta))
        await self._rooms.log.append(batch)
        return room

    async def _append(self, room: Room, join: Event, before: bytes, partial: PartialJoin | None) -> None:
        """One turn: the member event at the end of the room's log, the state that it leaves as the current one."""
        batch = self._rooms.log.begin()
        try:
            after = room.change_state(batch, before, {("m.room.member", str(join.state_key)): join.event_id})
            seq = room.meta.last_seq + 1
            note = EventNote(
                None, room.room_id, join.event_id, join.sender, join.type, join.state_key, seq
            )
            known = event_log.event_by_id(self._rooms.log, join.event_id)
            if known is not None and known.seq is not None:
                return
            record = event_log.put_event(batch, room.meta.nid, seq, stored_form(join, before, after), note=note)
            self._rooms.remember(join)
            unfinished = given_up(self._rooms.log, room.meta) if room.meta.partial_state else room.meta.unfinished
            room.meta = structs.replace(
                self._current_state.adopt(batch, room, after, join, note, record.position),
                last_seq=seq,
                last_position=record.position,
                extremities=[(join.event_id, join.depth)],
                backward_extremities=[*room.meta.backward_extremities[1 - MAX_BACKWARD :], join.event_id],
                partial_state=partial is not None,
                unfinished=unfinished,
            )
            if partial is not None:
                put_partial_join(batch, partial)
            room_log.put_room(batch, room.meta)
            note.record = record
            note.encrypted = room.encrypted
        except BaseException:
            self._rooms.drop(room.room_id)
            raise
        await self._rooms.log.append(batch)
