"""Receipts: how far each user has read each room, with an index by position for those who sync.

One row for each room, user, type and thread holds the newest receipt; the thread is ``""`` for receipts that are not
threaded. The storage does not judge which of two receipts is further: the writer does.
"""

from collections.abc import Iterator

import msgspec

from storage.log.append import Batch, Kind
from storage.log.catalog import RECEIPT_POSITIONS, RECEIPTS
from storage.log.keys import after_prefix, part, u64
from storage.log.view import Snapshot, View

PRIVATE_REF = b"private"
"""``ref`` of the entry of a receipt that concerns its owner alone."""


class Receipt(msgspec.Struct, array_like=True, frozen=True):
    """A receipt. ``ts`` in milliseconds; ``seq`` is the event's place in the room; ``position`` is the receipt's
    own."""

    room_id: str
    user_id: str
    type: str
    thread: str
    event_id: str
    seq: int
    ts: int
    position: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Receipt).decode


def put_receipt(batch: Batch, receipt: Receipt, private: bool) -> Receipt:
    """Store a receipt in place of the former one of its kind; returns it with its position.

    Takes a RECEIPT entry whose ``note`` is the receipt.
    """
    key = _key(receipt.room_id, receipt.user_id, receipt.type, receipt.thread)
    former = batch.get(RECEIPTS, key)
    if former is not None:
        batch.delete(RECEIPT_POSITIONS, part(receipt.room_id) + u64(_decode(former).position))
    position = batch.entry(
        Kind.RECEIPT, room_id=receipt.room_id, user_id=receipt.user_id, ref=PRIVATE_REF if private else b""
    )
    stored = msgspec.structs.replace(receipt, position=position)
    batch.entries[-1].note = stored
    batch.put(RECEIPTS, key, _encode(stored))
    batch.put(RECEIPT_POSITIONS, part(receipt.room_id) + u64(position), key)
    return stored


def receipt_of(view: View, room_id: str, user_id: str, type_: str, thread: str) -> Receipt | None:
    """The newest receipt of one kind."""
    data = view.get(RECEIPTS, _key(room_id, user_id, type_, thread))
    return None if data is None else _decode(data)


def receipts_of_user(snapshot: Snapshot, room_id: str, user_id: str) -> list[Receipt]:
    """All receipts of one user in a room."""
    prefix = part(room_id) + part(user_id)
    return [_decode(data) for _, data in snapshot.range(RECEIPTS, prefix, after_prefix(prefix))]


def receipts_between(snapshot: Snapshot, room_id: str, after: int, upto: int) -> Iterator[Receipt]:
    """Receipts of a room that were set after position ``after`` up to and including ``upto``, oldest first."""
    prefix = part(room_id)
    for _, key in snapshot.range(RECEIPT_POSITIONS, prefix + u64(after + 1), prefix + u64(upto + 1)):
        data = snapshot.get(RECEIPTS, key)
        if data is not None:
            yield _decode(data)


def _key(room_id: str, user_id: str, type_: str, thread: str) -> bytes:
    return part(room_id) + part(user_id) + part(type_) + part(thread)
