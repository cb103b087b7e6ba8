"""Reading a room: events, state, members, history. Every reader passes through here and through one visibility function.

Client-Server API, "Getting events for a room" and "Room history visibility". Works on snapshots of the log, never on what the
write side has in memory; each function is called within the snapshot of one turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.rendering import Renderer
from homeserver.rooms.sight import Sights
from homeserver.rooms.visibility import Sight
from homeserver.web.call import Requester
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Log
from storage.log.events import EventRecord
from storage.log.rooms import RoomMeta
from storage.log.state_map import StateMap
from storage.log.view import Snapshot

MAX_SCAN = 5_000
"""How many records one request looks at when most of them are hidden; the caller pages on from there."""

Wants = Callable[[EventRecord], bool]


@dataclass(slots=True)
class Reader:
    """One caller in one room, within one snapshot.

    ``root`` is the state that the caller may see: the current one, or the one they left behind.
    """

    snapshot: Snapshot
    meta: RoomMeta
    sight: Sight
    states: StateMap
    root: bytes
    joined: bool
    departure: int | None
    """Sequence number of the event by which the caller left, None while they are in the room or were never."""
    renderer: Renderer

    def sees(self, record: EventRecord) -> bool:
        """Whether the caller may see this event of the room."""
        if record.seq is None or record.rejected or record.soft_failed:
            return False
        return self.sight.sees(record.seq, record.type, record.state_key, record.state_before, record.state_after)

    def render(self, record: EventRecord) -> bytes:
        """A visible event as client JSON."""
        return self.renderer.timeline_event(record, self.sight)

    def state_event(self, type_: str, state_key: str, root: bytes | None = None) -> EventRecord | None:
        """A piece of the state that the caller may see."""
        event_id = self.states.get(self.root if root is None else root, type_, state_key)
        return None if event_id is None else event_log.event_by_id(self.snapshot, event_id)

    def state_events(self, root: bytes | None = None, type_: str | None = None) -> Iterator[EventRecord]:
        """All of it, or all of one type."""
        for _, event_id in self.states.items(self.root if root is None else root, type_):
            record = event_log.event_by_id(self.snapshot, event_id)
            if record is not None:
                yield record


@dataclass(slots=True)
class Slice:
    """A piece of visible history: records in the direction asked for, and where it was cut.

    ``end`` is the sequence number of the cut to continue from, None when there is nothing further.
    """

    records: list[EventRecord]
    end: int | None


class Reading:
    """Opens rooms for readers."""

    def __init__(self, log: Log, sights: Sights, now_ms: Callable[[], int]) -> None:
        self.log = log
        self._sights = sights
        self._now_ms = now_ms

    def open(self, snapshot: Snapshot, requester: Requester, room_id: str, *, peek: bool = True) -> Reader:
        """The room as this caller may see it.

        Former members see the room as they left it; others only where history is world readable (``peek``). Raises
        MatrixError 403 M_FORBIDDEN otherwise, for unknown rooms as well, so that nobody learns which rooms exist.
        """
        meta = room_log.room_meta(snapshot, room_id)
        user_id = requester.user_id
        member = room_log.membership_in(snapshot, user_id, room_id)
        if meta is None or not meta.last_seq:
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        states = StateMap(snapshot.get, meta.nid)
        sight = self._sights.sight(snapshot, meta, user_id)
        renderer = Renderer(snapshot, self._now_ms(), user_id, requester.device_id, with_room_id=True)
        joined = member is not None and member.membership == "join"
        departure = None
        root = meta.state_root
        if not joined:
            world = sight.standing(meta.state_root).visibility == "world_readable"
            left = None if member is None or member.forgotten else self._departure(snapshot, member, sight, room_id)
            if left is not None and not world:
                root, departure = left.state_after, left.seq
            elif not (world and peek):
                raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        return Reader(snapshot, meta, sight, states, root, joined, departure, renderer)

    def _departure(
        self, snapshot: Snapshot, member: room_log.MembershipRecord, sight: Sight, room_id: str
    ) -> EventRecord | None:
        """The event by which a former member left; None for somebody who was never in."""
        if member.membership not in ("leave", "ban"):
            return None
        record = event_log.event_by_id(snapshot, member.event_id)
        if record is None or record.seq is None or record.room_id != room_id:
            return None
        return record if sight.joined_after(0) or sight.joined_after(-(2**60)) else None

    def slice(
        self, reader: Reader, start: int, stop: int | None, limit: int, *, backwards: bool, wants: Wants | None = None
    ) -> Slice:
        """Up to ``limit`` visible events from the cut ``start``, until the cut ``stop``.

        A cut with number n lies between the events n-1 and n.
        """
        meta, snapshot = reader.meta, reader.snapshot
        first, last = meta.first_seq, meta.last_seq
        if backwards:
            low = first if stop is None else max(first, stop)
            records = event_log.room_slice(snapshot, meta.nid, low, min(start, last + 1), reverse=True)
        else:
            high = last + 1 if stop is None else min(stop, last + 1)
            records = event_log.room_slice(snapshot, meta.nid, max(start, first), high)
        found: list[EventRecord] = []
        end = start
        for scanned, record in enumerate(records):
            assert record.seq is not None
            if len(found) >= limit or scanned >= MAX_SCAN:
                return Slice(found, end)
            end = record.seq if backwards else record.seq + 1
            if (wants is None or wants(record)) and reader.sees(record):
                found.append(record)
        return Slice(found, None)

    def event(self, reader: Reader, event_id: str) -> EventRecord:
        """A visible event of this room. MatrixError 404 otherwise: the same answer for hidden and unknown ones."""
        record = event_log.event_by_id(reader.snapshot, event_id)
        if record is None or record.room_nid != reader.meta.nid or not reader.sees(record):
            raise MatrixError(404, "M_NOT_FOUND", "Event not found")
        return record

    def cut_of_position(self, reader: Reader, position: int) -> int:
        """The cut in this room that a position of the log stands for."""
        return event_log.last_seq_at(reader.snapshot, reader.meta.nid, reader.meta.last_seq, position) + 1

    def nearest(self, reader: Reader, ts: int, *, forward: bool) -> EventRecord | None:
        """The visible event closest to a time, in one direction; None if there is none."""
        for count, (_, seq) in enumerate(
            event_log.event_near(reader.snapshot, reader.meta.nid, ts, forward=forward)
        ):
            if count >= MAX_SCAN:
                return None
            record = event_log.event_at(reader.snapshot, reader.meta.nid, seq)
            if record is not None and reader.sees(record):
                return record
        return None


def sender_members(reader: Reader, records: list[EventRecord], root: bytes) -> list[EventRecord]:
    """The member events of everybody who sent one of the records, for lazy loading."""
    members: list[EventRecord] = []
    for sender in dict.fromkeys(record.sender for record in records):
        member: Any = reader.state_event("m.room.member", sender, root)
        if member is not None:
            members.append(member)
    return members
