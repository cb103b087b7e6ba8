"""Rooms: one row of facts for each room, and every user's memberships."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import msgspec
from twisted.logger import Logger

from storage.log.append import Batch
from storage.log.catalog import MEMBERSHIPS, ROOM_NIDS, ROOMS
from storage.log.keys import after_prefix, part, u64
from storage.log.view import Snapshot, View

T = TypeVar("T")

_report = Logger(namespace="storage.log")


class RoomMeta(msgspec.Struct, array_like=True, kw_only=True):
    """What the engine needs to append to a room. Change the fields and :func:`put_room` it."""

    room_id: str
    nid: int
    """The room's number in keys: the position at which it was created here."""
    version: str
    last_seq: int = 0
    first_seq: int = 1
    """Sequence number of the oldest stored event; 0 or less after backfill."""
    last_position: int = 0
    """Position of the room's newest event."""
    state_root: bytes = b""
    """Root of the current state."""
    extremities: list[tuple[str, int]] = []
    """Forward extremities: event id and depth."""
    backward_extremities: list[str] = []
    """Events whose predecessors are not stored."""
    joined: int = 0
    invited: int = 0
    creator: str = ""
    blocked: str = ""
    """Not used any more: see BLOCKED_ROOMS."""
    quarantined: str = ""
    """What is damaged; such a room is not served."""
    partial_state: bool = False
    federated: bool = True
    unfinished: list[tuple[int, int]] = []
    """First and last sequence numbers of what came while members were missing, and which they never came for: everybody
    of this server had left before. The states of these events are not whole."""


class MembershipRecord(msgspec.Struct, array_like=True, frozen=True):
    """A user's membership of one room, as of the event that made it."""

    room_id: str
    membership: str
    position: int
    event_id: str
    sender: str
    forgotten: bool = False
    stripped_state: bytes = b""
    """JSON array of stripped state events that came with a remote invite or knock, ``b""`` for none."""


_encode = msgspec.msgpack.Encoder().encode
_meta_decoder = msgspec.msgpack.Decoder(RoomMeta)
_membership_decoder = msgspec.msgpack.Decoder(MembershipRecord)


def put_room(batch: Batch, meta: RoomMeta) -> None:
    """Write a room's row."""
    batch.put(ROOMS, part(meta.room_id), _encode(meta))


def create_room(batch: Batch, meta: RoomMeta) -> None:
    """Write a new room's row and its number."""
    put_room(batch, meta)
    batch.put(ROOM_NIDS, u64(meta.nid), meta.room_id.encode())


def room_meta(view: View, room_id: str) -> RoomMeta | None:
    """A fresh copy of the room's row, ``None`` when unknown here."""
    data = view.get(ROOMS, part(room_id))
    return None if data is None else _meta_decoder.decode(data)


def room_of_nid(view: View, room_nid: int) -> str | None:
    """The id of the room with this number."""
    data = view.get(ROOM_NIDS, u64(room_nid))
    return None if data is None else data.decode()


def all_rooms(snapshot: Snapshot, after: str = "", limit: int | None = None) -> list[RoomMeta]:
    """Rooms in key order, those behind room id ``after``. Damaged rows are reported and left out."""
    start = part(after) + b"\0" if after else b"\0"
    return list(islice(_readable(snapshot.range(ROOMS, start, b"\xff" * 34), _meta_decoder.decode), limit))


def put_membership(batch: Batch, user_id: str, record: MembershipRecord) -> None:
    """Write a user's membership of a room."""
    batch.put(MEMBERSHIPS, part(user_id) + part(record.room_id), _encode(record))


def forget(batch: Batch, user_id: str, room_id: str) -> bool:
    """Mark a membership forgotten; ``False`` when there is none. A new membership clears the mark."""
    record = membership_in(batch, user_id, room_id)
    if record is None:
        return False
    put_membership(batch, user_id, msgspec.structs.replace(record, forgotten=True))
    return True


def membership_in(view: View, user_id: str, room_id: str) -> MembershipRecord | None:
    """A user's membership of one room."""
    data = view.get(MEMBERSHIPS, part(user_id) + part(room_id))
    return None if data is None else _membership_decoder.decode(data)


def membership_of(snapshot: Snapshot, user_id: str) -> dict[str, MembershipRecord]:
    """All of a user's memberships by room id, forgotten ones included. Damaged rows are reported and left out."""
    prefix = part(user_id)
    rows = snapshot.range(MEMBERSHIPS, prefix, after_prefix(prefix))
    return {record.room_id: record for record in _readable(rows, _membership_decoder.decode)}


def _readable(rows: Iterable[tuple[bytes, bytes]], decode: Callable[[bytes], T]) -> Iterator[T]:
    for key, data in rows:
        try:
            yield decode(data)
        except ValueError:
            _report.error("a damaged row is left out, key {key!r}: stop the server and run check-log", key=key)
