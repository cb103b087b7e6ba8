"""Giving a room that was joined with part of its state the whole of it: every event since is judged again.

The events go through the same checks as when they came (`place`), in the same order, on states that now begin with the
complete one. So what was let in for want of knowledge is found out: it becomes rejected or soft-failed, and the heads and the
current state are those that a full join would have led to.
"""

from msgspec import structs

from federation.rules.auth import check_auth
from federation.rules.auth_events import AuthError
from federation.rules.event import Event
from homeserver.rooms.current_state import MEMBER, CurrentState
from homeserver.rooms.extremities import DUMMY
from homeserver.rooms.place import Place
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.state_at import States
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Batch, Kind
from storage.log.partial_joins import drop_partial_join

STEP = 100
"""Events judged again in one turn of the reactor."""


class Replay:
    """One room's. Call `begin`, then `step` until it says that it is done; nobody may receive events in the room meanwhile.

    Users of this server may go on sending: what they send is placed at the end and judged again like the rest.
    """

    def __init__(
        self,
        rooms: Rooms,
        states: States,
        place: Place,
        current_state: CurrentState,
        room_id: str,
        join_id: str,
        root: bytes,
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._place = place
        self._current_state = current_state
        self._room_id = room_id
        self._join_id = join_id
        self._root = root
        self._after: dict[str, bytes] = {}
        self._heads: dict[str, int] = {}
        self._current = root
        self._failed: dict[str, tuple[str, ...]] = {}
        record = event_log.event_by_id(rooms.log, join_id)
        assert record is not None and record.seq is not None, "the join is stored"
        self._next = record.seq
        self.count = 0
        """Events that were judged again."""
        self.refused = 0
        """Those of them that clients were told of and that do not stand."""

    async def begin(self) -> None:
        """Let the members who were missing come in, in small steps. What became known of others since the join stays."""
        room = self._rooms.get(self._room_id)
        missing = (
            change
            for change in room.state_map.diff(room.meta.state_root, self._root)
            if change[0][0] == MEMBER and change[1] is None
        )
        await self._current_state.approach(self._room_id, missing, announced=True)

    def step(self) -> bool:
        """One turn; whether that was the last one, so that the room's state is complete."""
        room = self._rooms.get(self._room_id)
        batch = self._rooms.log.begin()
        try:
            done = self._some(batch, room)
        except BaseException:
            self._rooms.drop(self._room_id)
            raise
        self._rooms.log.append(batch).addErrback(_ignore)
        return done

    def _some(self, batch: Batch, room: Room) -> bool:
        for _ in range(STEP):
            if self._next > room.meta.last_seq:
                self._finish(batch, room)
                return True
            record = event_log.event_at(self._rooms.log, room.meta.nid, self._next)
            self._next += 1
            if record is not None:
                self._judge(batch, room, record)
        return False

    def _judge(self, batch: Batch, room: Room, record: event_log.EventRecord) -> None:
        event = Event.from_json(record.pdu, room.version, event_id=record.event_id)
        before = self._before(batch, room, event, record)
        flags = record.flags
        after = before
        try:
            self._place.check(room, event, before)
            if event.state_key is not None:
                after = room.change_state(batch, before, {(event.type, event.state_key): event.event_id})
            if before != self._current and event.event_id != self._join_id:
                try:
                    check_auth(event, self._states.auth_state(room, self._current, event))
                except AuthError:
                    flags |= event_log.SOFT_FAILED
            # A redaction that waits for its target and a dummy event are hidden, but heads like any other.
            hidden = bool(flags & event_log.SOFT_FAILED) and event.type not in ("m.room.redaction", DUMMY)
        except AuthError:
            flags |= event_log.REJECTED
            hidden = True
        self._after[event.event_id] = after
        self.count += 1
        self.refused += flags != record.flags
        told = event_log.as_new(record)
        told.state_before, told.state_after, told.flags = before, after, flags & ~event_log.OUTLIER
        told.room_state = b""  # the room's state then lacked members
        event_log.rewrite_record(batch, record, told)
        if hidden:
            self._failed[event.event_id] = event.prev_event_ids
        else:
            self._become_head(batch, room, event)

    def _before(self, batch: Batch, room: Room, event: Event, record: event_log.EventRecord) -> bytes:
        if event.event_id == self._join_id:
            return self._root
        roots = [self._after.get(id_) or self._states.after(room.room_id, id_) for id_ in event.prev_event_ids]
        if not roots or any(root is None for root in roots):
            return record.state_before  # as a peer told it, whole
        return self._states.resolve(batch, room, [root for root in roots if root is not None])

    def _become_head(self, batch: Batch, room: Room, event: Event) -> None:
        walk = list(event.prev_event_ids)
        seen: set[str] = set()
        while walk:
            before = walk.pop()
            if before not in seen:
                seen.add(before)
                self._heads.pop(before, None)
                walk += self._failed.get(before, ())
        self._heads[event.event_id] = event.depth
        self._current = self._states.resolve(batch, room, [self._after[head] for head in self._heads])

    def _finish(self, batch: Batch, room: Room) -> None:
        position = batch.entry(Kind.ROOM, room_id=room.room_id)
        heads = [(event_id, depth) for event_id, depth in self._heads.items()]
        join = self._rooms.event(self._join_id)
        assert join is not None, "the join is stored"
        adopted = self._current_state.adopt(batch, room, self._current, join, None, position)
        room.meta = structs.replace(adopted, extremities=heads or room.meta.extremities, partial_state=False)
        room_log.put_room(batch, room.meta)
        drop_partial_join(batch, room.room_id)


def _ignore(failure: object) -> None:
    """The log has failed: it says so itself, and the server stops."""
