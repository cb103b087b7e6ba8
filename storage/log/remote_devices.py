"""What is known of the devices and cross-signing keys of other servers' users: one row for each user.

A copy that the user's own server keeps right with ``m.device_list_update`` messages (Server-Server API, "Device
Management"); losing a row costs a request.
"""

from collections.abc import Iterator

import msgspec

from storage.log.append import Batch
from storage.log.catalog import REMOTE_DEVICES
from storage.log.keys import part
from storage.log.view import Snapshot, View


class RemoteDevices(msgspec.Struct, array_like=True):
    """One user's row. ``devices`` has the keys as JSON bytes, by device ID.

    ``streams`` are the newest stream ids that the row includes, the last one at the end; empty when its version is not known.
    ``loaded``: the devices were fetched at least once. ``stale``: something was missed, they have to be fetched again;
    not before ``retry_at`` (ms) after ``failures`` in a row. ``marks`` counts how often the row became stale.
    """

    user_id: str
    devices: dict[str, bytes] = {}
    master: bytes | None = None
    self_signing: bytes | None = None
    streams: list[int] = []
    loaded: bool = False
    stale: bool = False
    marks: int = 0
    failures: int = 0
    retry_at: int = 0


_decode = msgspec.msgpack.Decoder(RemoteDevices).decode


def remote_devices(view: View, user_id: str) -> RemoteDevices | None:
    """The row of a user, None when nothing is kept."""
    value = view.get(REMOTE_DEVICES, part(user_id))
    return None if value is None else _decode(value)


def is_known(view: View, user_id: str) -> bool:
    """Whether there is a row."""
    return view.get(REMOTE_DEVICES, part(user_id)) is not None


def put_remote_devices(batch: Batch, row: RemoteDevices) -> None:
    """Write a row."""
    batch.put(REMOTE_DEVICES, part(row.user_id), msgspec.msgpack.encode(row))


def delete_remote_devices(batch: Batch, user_id: str) -> None:
    """Forget a user's devices."""
    batch.delete(REMOTE_DEVICES, part(user_id))


def all_remote_devices(snapshot: Snapshot, after: str, limit: int) -> Iterator[RemoteDevices]:
    """Rows in key order: the first ones behind that of the user ``after`` (empty: from the start)."""
    start = part(after) + b"\0" if after else b"\0"
    for _, value in snapshot.range(REMOTE_DEVICES, start, b"\xff" * 34, limit=limit):
        yield _decode(value)
