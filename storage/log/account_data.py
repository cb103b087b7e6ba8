"""Account data: what a user's clients keep with the server, for the account as a whole or for one room.

One row for each user, room (``""`` for the account) and type holds the newest content; an index by position serves
those who sync.
"""

from collections.abc import Iterator

import msgspec

from storage.log.append import Batch, Kind
from storage.log.catalog import ACCOUNT_DATA, ACCOUNT_DATA_POSITIONS
from storage.log.keys import after_prefix, part, u64
from storage.log.view import Snapshot, View


class Datum(msgspec.Struct, array_like=True, frozen=True):
    """One piece of account data; ``content`` is JSON bytes."""

    room_id: str
    type: str
    content: bytes
    position: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Datum).decode


def put_datum(batch: Batch, user_id: str, room_id: str, type_: str, content: bytes) -> int:
    """Store a piece of account data in place of the former one; returns its position."""
    key = _key(user_id, room_id, type_)
    former = batch.get(ACCOUNT_DATA, key)
    if former is not None:
        batch.delete(ACCOUNT_DATA_POSITIONS, part(user_id) + u64(_decode(former).position))
    position = batch.entry(Kind.ACCOUNT_DATA, user_id=user_id, room_id=room_id)
    batch.put(ACCOUNT_DATA, key, _encode(Datum(room_id, type_, content, position)))
    batch.put(ACCOUNT_DATA_POSITIONS, part(user_id) + u64(position), key)
    return position


def datum(view: View, user_id: str, room_id: str, type_: str) -> Datum | None:
    """One piece of account data; ``room_id`` is ``""`` for the account's own."""
    data = view.get(ACCOUNT_DATA, _key(user_id, room_id, type_))
    return None if data is None else _decode(data)


def data_of(snapshot: Snapshot, user_id: str, room_id: str | None = None) -> list[Datum]:
    """All account data of a user, or that of one room (``""``: the account's own)."""
    prefix = part(user_id) if room_id is None else part(user_id) + part(room_id)
    return [_decode(data) for _, data in snapshot.range(ACCOUNT_DATA, prefix, after_prefix(prefix))]


def delete_data(batch: Batch, snapshot: Snapshot, user_id: str) -> None:
    """Delete all account data of a user."""
    for one in data_of(snapshot, user_id):
        batch.delete(ACCOUNT_DATA, _key(user_id, one.room_id, one.type))
        batch.delete(ACCOUNT_DATA_POSITIONS, part(user_id) + u64(one.position))


def data_between(snapshot: Snapshot, user_id: str, after: int, upto: int) -> Iterator[Datum]:
    """What a user's clients stored after position ``after`` up to and including ``upto``, oldest first."""
    prefix = part(user_id)
    for _, key in snapshot.range(ACCOUNT_DATA_POSITIONS, prefix + u64(after + 1), prefix + u64(upto + 1)):
        data = snapshot.get(ACCOUNT_DATA, key)
        if data is not None:
            yield _decode(data)


def _key(user_id: str, room_id: str, type_: str) -> bytes:
    return part(user_id) + part(room_id) + part(type_)
