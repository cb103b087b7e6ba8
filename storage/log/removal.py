"""Taking everything of a room out of the log, in bounded steps that go on after a crash where they ended.

The room's row goes first (`begin`), so that nobody reads or writes the room any more; what is left is swept table by
table (`step`). Where the sweep stands is a :class:`Removal`, stored in the same batch as each step. One thing stays:
whoever of this server was a member keeps the row of their departure and its event, for devices that have not heard of it.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from storage.log.append import ENTRY_HEADER, Batch, Kind
from storage.log.catalog import (
    ACCOUNT_DATA,
    ACCOUNT_DATA_POSITIONS,
    ALIASES,
    BLOCKED_ROOMS,
    DESTINATION_ROOMS,
    EVENT_IDS,
    EVENTS,
    FOLLOWERS,
    LOG,
    MEMBERSHIPS,
    NODES,
    OUTLIERS,
    PUBLISHED_ROOMS,
    RECEIPT_POSITIONS,
    RECEIPTS,
    REDACTIONS_AHEAD,
    RELATIONS,
    ROOM_ALIASES,
    ROOM_NIDS,
    ROOMS,
    THREAD_ROOTS,
    THREADS,
    TIMESTAMPS,
    Table,
)
from storage.log.events import EventRecord, as_new, place_of, put_outlier
from storage.log.keys import after_prefix, part, timestamp_key, u64
from storage.log.partial_joins import drop_partial_join
from storage.log.relations import Relation
from storage.log.rooms import MembershipRecord, RoomMeta, membership_in, put_membership
from storage.log.view import Snapshot, View

STEP: Final = 500
"""Rows looked at in one step, of tables of the room."""
SCAN: Final = 5_000
"""Rows looked at in one step, of tables that hold all rooms."""
END: Final = b"\xff" * 511

RelationOf = Callable[[EventRecord, str], Relation | None]
"""What an event (of a room of this version) relates to, by whoever can parse it."""


class Removal(msgspec.Struct, array_like=True, kw_only=True):
    """What is to be removed, and how far that has come. Times in milliseconds."""

    room_id: str
    local: str
    """The end of local user ids: ``:example.org``."""
    nid: int = 0
    version: str = ""
    phase: str = "leaving"
    cursor: bytes = b""
    """The next key of the phase's table."""
    started: int = 0
    removed: int = 0
    """Rows deleted so far."""
    left: int = 0
    """Local users who had to leave."""
    by: str = ""


_JOBS = part("removing")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Removal).decode


def put_removal(batch: Batch, removal: Removal) -> None:
    """Remember what is to be done."""
    batch.put(FOLLOWERS, _JOBS + part(removal.room_id), u64(0) + _encode(removal))


def removal_of(view: View, room_id: str) -> Removal | None:
    """The unfinished removal of a room."""
    data = view.get(FOLLOWERS, _JOBS + part(room_id))
    return None if data is None else _decode(data[8:])


def removals(snapshot: Snapshot) -> list[Removal]:
    """All that are unfinished."""
    return [_decode(data[8:]) for _, data in snapshot.range(FOLLOWERS, _JOBS, after_prefix(_JOBS))]


def end_removal(batch: Batch, room_id: str) -> None:
    """It is done."""
    batch.delete(FOLLOWERS, _JOBS + part(room_id))


def block(batch: Batch, room_id: str, reason: str) -> None:
    """Nobody of this server may enter a room."""
    batch.put(BLOCKED_ROOMS, part(room_id), room_id.encode() + b"\0" + reason.encode())


def unblock(batch: Batch, room_id: str) -> None:
    """Let people enter again."""
    batch.delete(BLOCKED_ROOMS, part(room_id))


def is_blocked(view: View, room_id: str) -> bool:
    """Whether nobody of this server may enter a room."""
    return view.get(BLOCKED_ROOMS, part(room_id)) is not None


def blocked_rooms(snapshot: Snapshot) -> dict[str, str]:
    """Blocked rooms with the reasons."""
    rows = (value.decode().partition("\0") for _, value in snapshot.range(BLOCKED_ROOMS, b"\0", END))
    return {room_id: reason for room_id, _, reason in rows}


def begin(batch: Batch, snapshot: Snapshot, removal: Removal, meta: RoomMeta | None) -> None:
    """Take away the room's row, its aliases and its listing: from here on there is no such room, and nothing of it to fetch."""
    room = part(removal.room_id)
    batch.delete(ROOMS, room)
    batch.delete(PUBLISHED_ROOMS, room)
    drop_partial_join(batch, removal.room_id)
    for key, alias in snapshot.range(ROOM_ALIASES, room, after_prefix(room)):
        batch.delete(ROOM_ALIASES, key)
        batch.delete(ALIASES, part(alias.decode()))
        removal.removed += 2
    if meta is not None:
        batch.delete(ROOM_NIDS, u64(meta.nid))
        removal.nid, removal.version = meta.nid, meta.version
    removal.removed += 3
    removal.phase, removal.cursor = PHASES[0], b""
    put_removal(batch, removal)


def step(batch: Batch, snapshot: Snapshot, removal: Removal, relation_of: RelationOf) -> bool:
    """Remove some more; False when nothing is left, and then the job itself is gone too. Append the batch either way."""
    sweep = _Sweep(batch, snapshot, removal, relation_of)
    if sweep.go_on():
        put_removal(batch, removal)
        return True
    at = PHASES.index(removal.phase) + 1
    if at < len(PHASES):
        removal.phase, removal.cursor = PHASES[at], b""
        put_removal(batch, removal)
        return True
    end_removal(batch, removal.room_id)
    return False


class _Sweep:
    """One step of one phase: a range of one table, from where the last step ended."""

    def __init__(self, batch: Batch, snapshot: Snapshot, removal: Removal, relation_of: RelationOf) -> None:
        self._batch = batch
        self._snapshot = snapshot
        self._removal = removal
        self._relation_of = relation_of
        self._room = part(removal.room_id)

    def go_on(self) -> bool:
        """Whether the phase has more."""
        more: bool = getattr(self, f"_{self._removal.phase}")()
        return more

    def _delete(self, table: Table, key: bytes) -> None:
        self._batch.delete(table, key)
        self._removal.removed += 1

    def _rows(self, table: Table, first: bytes, stop: bytes, limit: int) -> Iterator[tuple[bytes, bytes]]:
        start = self._removal.cursor or first
        for key, value in self._snapshot.range(table, start, stop, limit=limit):
            self._removal.cursor = key + b"\0"
            yield key, value

    def _all_of(self, table: Table, prefix: bytes) -> bool:
        count = 0
        for key, _ in self._rows(table, prefix, after_prefix(prefix), STEP):
            count += 1
            self._delete(table, key)
        return count == STEP

    # -- tables of the room --------------------------------------------------------------------------------------------

    def _events(self) -> bool:
        prefix, count = u64(self._removal.nid), 0
        for key, data in self._rows(EVENTS, prefix, after_prefix(prefix), STEP):
            count += 1
            self._delete(EVENTS, key)
            try:
                self._event(key, EventRecord(data))
            except (ValueError, struct.error):  # a damaged row goes without its index rows
                continue
        return count == STEP

    def _event(self, key: bytes, record: EventRecord) -> None:
        self._delete(EVENT_IDS, part(record.event_id))
        self._delete(TIMESTAMPS, timestamp_key(record.room_nid, record.origin_server_ts, record.seq or 0))
        self._delete(LOG, u64(record.position))
        if record.redacts is not None:
            self._delete(REDACTIONS_AHEAD, part(record.redacts))
        relation = self._relation_of(record, self._removal.version)
        if relation is not None:
            self._delete(RELATIONS, part(relation.parent) + part(relation.rel_type) + key[8:])
        if self._is_departure(record):
            kept = as_new(record)
            kept.state_before = kept.state_after = kept.room_state = b""
            put_outlier(self._batch, 0, kept)

    def _is_departure(self, record: EventRecord) -> bool:
        """Whether the event says how a local user stands to the room, as their devices may have yet to hear."""
        user_id = record.state_key
        if record.type != "m.room.member" or user_id is None or not user_id.endswith(self._removal.local):
            return False
        member = membership_in(self._snapshot, user_id, self._removal.room_id)
        return member is not None and not member.forgotten and member.event_id == record.event_id

    def _threads(self) -> bool:
        prefix, count = u64(self._removal.nid), 0
        for key, root in self._rows(THREADS, prefix, after_prefix(prefix), STEP):
            count += 1
            self._delete(THREADS, key)
            self._delete(THREAD_ROOTS, part(root.decode()))
        return count == STEP

    def _nodes(self) -> bool:
        return self._all_of(NODES, u64(self._removal.nid))

    def _receipts(self) -> bool:
        return self._all_of(RECEIPTS, self._room)

    def _receipt_positions(self) -> bool:
        return self._all_of(RECEIPT_POSITIONS, self._room)

    # -- tables that hold all rooms ------------------------------------------------------------------------------------

    def _outliers(self) -> bool:
        count, nid = 0, u64(self._removal.nid)
        for key, data in self._rows(OUTLIERS, b"\0", END, SCAN):
            count += 1
            if data[12:20] != nid:
                continue
            try:
                record = EventRecord(data)
                if self._is_departure(record):
                    continue
                event_id = part(record.event_id)
            except (ValueError, struct.error):
                event_id = key
            self._delete(OUTLIERS, key)
            self._delete(EVENT_IDS, event_id)
        return count == SCAN

    def _memberships(self) -> bool:
        count = 0
        for key, data in self._rows(MEMBERSHIPS, b"\0", END, SCAN):
            count += 1
            if not key.endswith(self._room):
                continue
            member = msgspec.msgpack.decode(data, type=MembershipRecord)
            if member.room_id != self._removal.room_id:
                continue
            if self._is_local(key, member):
                self._account_data(key)
                if not member.forgotten:
                    self._end_membership(key, member)
                    continue
            self._delete(MEMBERSHIPS, key)
        return count == SCAN

    def _end_membership(self, key: bytes, member: MembershipRecord) -> None:
        """Nobody is in a room that is not there: an invite of another server, or one whom the rules did not let leave."""
        if member.membership in ("join", "invite", "knock") and key[:1] != b"\xff":
            user_id = key[1 : -len(self._room)].decode()
            position = self._batch.entry(Kind.MEMBERSHIP, room_id=member.room_id, user_id=user_id)
            gone = msgspec.structs.replace(member, membership="leave", position=position, stripped_state=b"")
            put_membership(self._batch, user_id, gone)

    def _is_local(self, key: bytes, member: MembershipRecord) -> bool:
        if key[:1] == b"\xff":  # the user id is too long to stand in the key, but of ours the event was kept
            return place_of(self._snapshot, member.event_id) is not None
        return key[: -len(self._room)].endswith(self._removal.local.encode())

    def _account_data(self, member_key: bytes) -> None:
        user = member_key[: -len(self._room)]
        for key, data in self._snapshot.range(ACCOUNT_DATA, member_key, after_prefix(member_key)):
            position: int = msgspec.msgpack.decode(data)[3]
            self._delete(ACCOUNT_DATA, key)
            self._delete(ACCOUNT_DATA_POSITIONS, user + u64(position))

    def _destination_rooms(self) -> bool:
        count, room = 0, self._removal.room_id.encode()
        for key, value in self._rows(DESTINATION_ROOMS, b"\0", END, SCAN):
            count += 1
            if value[8:] == room:
                self._delete(DESTINATION_ROOMS, key)
        return count == SCAN

    def _log(self) -> bool:
        count, room = 0, self._removal.room_id.encode()
        start, size = ENTRY_HEADER.size, len(room)
        for key, value in self._rows(LOG, u64(self._removal.nid), END, SCAN):
            count += 1
            if value[start : start + size] == room and ENTRY_HEADER.unpack_from(value)[1] == size:
                self._delete(LOG, key)
        return count == SCAN


PHASES: Final = (
    "events", "threads", "nodes", "receipts", "receipt_positions",
    "outliers", "memberships", "destination_rooms", "log",
)  # fmt: skip
"""The sweeps in their order, each a method of ``_Sweep``. Entries of the log go last."""
