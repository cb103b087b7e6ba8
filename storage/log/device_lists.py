"""When somebody's devices or keys last changed.

For each user only the last change is kept in the index: whoever has to hear of an earlier one hears of that. Some
changes are seen by one person alone (what they signed of other people's keys); those are kept as they come.
"""

from collections.abc import Iterator

from storage.log.append import Batch, Kind, unpack_entry
from storage.log.catalog import DEVICE_LIST_POSITIONS, DEVICE_LISTS, LOG
from storage.log.keys import from_u64, part, u64
from storage.log.view import Snapshot, View

_SEPARATOR = b"\0"


def put_change(batch: Batch, user_id: str, device_id: str = "") -> int:
    """The devices or keys of a user changed, for everybody; returns the position.

    ``device_id`` when it is one device that changed. The entry's note is the position of the change before, 0 for none.
    """
    position = batch.entry(Kind.DEVICE_LIST, user_id=user_id, device_id=device_id)
    earlier = batch.get(DEVICE_LISTS, part(user_id))
    batch.entries[-1].note = 0 if earlier is None else from_u64(earlier)
    if earlier is not None:
        batch.delete(DEVICE_LIST_POSITIONS, earlier)
    batch.put(DEVICE_LISTS, part(user_id), u64(position))
    batch.put(DEVICE_LIST_POSITIONS, u64(position), user_id.encode())
    return position


def put_private_change(batch: Batch, user_id: str, viewer: str) -> int:
    """The keys of ``user_id`` look different to ``viewer`` alone: the entry's user; its ``ref`` is ``user_id``."""
    position = batch.entry(Kind.DEVICE_LIST, user_id=viewer, ref=user_id.encode())
    batch.put(DEVICE_LIST_POSITIONS, u64(position), user_id.encode() + _SEPARATOR + viewer.encode())
    return position


def changes_between(snapshot: Snapshot, after: int, upto: int) -> Iterator[tuple[str, str | None]]:
    """``(user ID, viewer or None for everybody)`` of changes after ``after`` up to and including ``upto``."""
    for _, value in snapshot.range(DEVICE_LIST_POSITIONS, u64(after + 1), u64(upto + 1)):
        user_id, _, viewer = value.partition(_SEPARATOR)
        yield user_id.decode(), viewer.decode() or None


def last_changed_device(view: View, user_id: str) -> tuple[int, str]:
    """The position of a user's last change and the device that changed, empty when it was not a single one."""
    position = last_change(view, user_id) or 0
    entry = view.get(LOG, u64(position))
    return position, "" if entry is None else unpack_entry(position, entry).device_id


def last_change(view: View, user_id: str) -> int | None:
    """The position of a user's last change, None when there never was one."""
    value = view.get(DEVICE_LISTS, part(user_id))
    return None if value is None else from_u64(value)
