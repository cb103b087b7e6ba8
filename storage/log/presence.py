"""What of presence is worth keeping: each user's status message and when they were last active. One row for a user."""

from collections.abc import Iterator

import msgspec

from storage.log.append import Batch
from storage.log.catalog import PRESENCE
from storage.log.keys import LAST, part
from storage.log.view import Snapshot


class KeptPresence(msgspec.Struct, array_like=True, frozen=True):
    """A user's row. ``active_ts`` is wall time in milliseconds, None for never."""

    user_id: str
    active_ts: int | None
    status: str | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(KeptPresence).decode


def put_presence(batch: Batch, row: KeptPresence) -> None:
    """Store a user's row in place of the former one."""
    batch.put(PRESENCE, part(row.user_id), _encode(row))


def delete_presence(batch: Batch, user_id: str) -> None:
    """Keep nothing of a user."""
    batch.delete(PRESENCE, part(user_id))


def all_presence(snapshot: Snapshot, limit: int) -> Iterator[KeptPresence]:
    """The rows of at most ``limit`` users."""
    for _, data in snapshot.range(PRESENCE, b"\0", LAST, limit=limit):
        yield _decode(data)
