"""Reading the commit log in order: what followers do from their stored cursors."""

from collections.abc import Iterator

from storage.log.append import Batch, Entry, unpack_entry
from storage.log.catalog import DEVICE_CURSORS, FOLLOWERS, LOG
from storage.log.keys import from_u64, part, u64
from storage.log.view import Snapshot, View


def entries(snapshot: Snapshot, after: int, upto: int, limit: int | None = None) -> Iterator[Entry]:
    """Durable entries with ``after < position <= upto``, oldest first, at most ``limit``.

    Positions may have gaps: ephemeral entries are not stored. Raises ``ValueError`` on a damaged row.
    """
    for key, value in snapshot.range(LOG, u64(after + 1), u64(upto + 1), limit=limit):
        yield unpack_entry(from_u64(key), value)


def follower_cursor(view: View, name: str) -> tuple[int, bytes] | None:
    """A follower's position and the bytes that it keeps with it; ``None`` before its first."""
    value = view.get(FOLLOWERS, part(name))
    return None if value is None else (from_u64(value), value[8:])


def put_follower_cursor(batch: Batch, name: str, position: int, rest: bytes = b"") -> None:
    """Move a follower's cursor: all up to ``position`` has been dealt with."""
    batch.put(FOLLOWERS, part(name), u64(position) + rest)


def device_cursor(view: View, user_id: str, device_id: str) -> int | None:
    """The position up to which a device has acknowledged; ``None`` before its first."""
    value = view.get(DEVICE_CURSORS, part(user_id) + part(device_id))
    return None if value is None else from_u64(value)


def put_device_cursor(batch: Batch, user_id: str, device_id: str, position: int) -> None:
    """Store what a device has acknowledged."""
    batch.put(DEVICE_CURSORS, part(user_id) + part(device_id), u64(position))


def delete_device_cursor(batch: Batch, user_id: str, device_id: str) -> None:
    """Forget a device's cursor (it was deleted)."""
    batch.delete(DEVICE_CURSORS, part(user_id) + part(device_id))
