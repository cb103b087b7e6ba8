"""Our copy of the device lists of other servers' users, and what changes it.

Server-Server API, "Device Management": each update names the ones before it. Known predecessors: it is applied. Otherwise
something was missed: the row is marked as stale, durably, and the whole list is fetched again (``resync``). Clients hear of
a change once the copy is right, or once the first attempt to make it right has failed.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import orjson
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.keys.remote_shapes import DeviceList, DeviceUpdate, cross_signing_json, device_update, is_bounded
from storage.log import device_lists
from storage.log.append import Batch, Log
from storage.log.remote_devices import RemoteDevices, delete_remote_devices, put_remote_devices, remote_devices

MAX_STREAMS = 20
"""Stream ids of one user that are remembered."""

_report = Logger()


class PeerDevices:
    """The copy. ``tracked`` says whether a user shares a room with us, so that their server tells us of changes.

    Set ``on_stale``: told of a user whose list has to be fetched again.
    """

    def __init__(self, log: Log, tracked: Callable[[str], bool]) -> None:
        self._log = log
        self._tracked = tracked
        self.on_stale: Callable[[str], None] = lambda user_id: None

    def get(self, user_id: str) -> RemoteDevices | None:
        """What is known of a user."""
        return remote_devices(self._log, user_id)

    def update(self, user_id: str, content: Mapping[str, Any]) -> None:
        """An ``m.device_list_update`` of the user's server. Raises MatrixError 400 for what is malformed or too large."""
        if not self._tracked(user_id):
            return
        update = device_update(user_id, content)
        row = self.get(user_id)
        if row is None or not row.loaded or row.stale:
            self._mark(user_id, row, update.stream_id)
        elif update.stream_id in row.streams and row.devices.get(update.device_id) == update.keys:
            return  # told twice
        elif update.stream_id in row.streams or not update.previous or not update.previous <= set(row.streams):
            self._mark(user_id, row, update.stream_id)
        else:
            self._apply(row, update)

    def signing_keys(self, user_id: str, content: Mapping[str, Any]) -> None:
        """An ``m.signing_key_update``. Raises MatrixError 400 for keys that are malformed or another user's."""
        if not self._tracked(user_id):
            return
        keys = {}
        for usage in ("master", "self_signing"):
            given = content.get(f"{usage}_key")
            if given is not None:
                keys[usage] = cross_signing_json(user_id, usage, given)
        if None in keys.values():
            raise MatrixError(400, "M_BAD_JSON", "These are no cross-signing keys of this user")
        row = self.get(user_id)
        if row is None or not row.loaded or row.stale:
            self._mark(user_id, row, None)
            return
        master, self_signing = keys.get("master", row.master), keys.get("self_signing", row.self_signing)
        if "self_signing" not in keys and _public_keys(master) != _public_keys(row.master):
            self_signing = None  # only the former master key vouched for it
        if (master, self_signing) != (row.master, row.self_signing):
            self._write(msgspec.structs.replace(row, master=master, self_signing=self_signing), tell=True)

    def store(self, user_id: str, found: DeviceList, marks: int) -> RemoteDevices:
        """Take a whole list over that was asked for when the row had ``marks`` marks (0 for no row).

        Updates that came meanwhile may or may not be in it: then the row stays stale. Clients hear of a list that was not
        known as well: some may have asked for it in vain.
        """
        before = self.get(user_id) or RemoteDevices(user_id)
        row = RemoteDevices(user_id, found.devices, found.master, found.self_signing, loaded=True)
        row.streams, row.marks, row.stale = before.streams, before.marks, before.marks != marks
        if found.stream_id is not None and found.stream_id not in row.streams:
            row.streams = [*row.streams, found.stream_id][-MAX_STREAMS:]
        self._write(row, tell=not _same(before, row))
        if row.stale:
            self.on_stale(user_id)
        return row

    def failed(self, user_id: str, retry_at: int) -> None:
        """A stale list could not be fetched and is not asked for before ``retry_at`` (ms)."""
        row = self.get(user_id)
        if row is not None and row.stale:
            first = row.failures == 0
            self._write(msgspec.structs.replace(row, failures=row.failures + 1, retry_at=retry_at), tell=first)

    def forget(self, user_ids: Iterable[str]) -> None:
        """These users share no room with us any more: nobody will tell us of changes."""
        batch = self._log.begin()
        for user_id in user_ids:
            delete_remote_devices(batch, user_id)
        self._append(batch)

    def _mark(self, user_id: str, row: RemoteDevices | None, stream_id: int | None) -> None:
        row = row or RemoteDevices(user_id)
        streams = row.streams if stream_id is None else [*row.streams, stream_id][-MAX_STREAMS:]
        self._write(msgspec.structs.replace(row, stale=True, marks=row.marks + 1, streams=streams), tell=False)
        self.on_stale(user_id)

    def _apply(self, row: RemoteDevices, update: DeviceUpdate) -> None:
        devices = dict(row.devices)
        if update.keys is None:
            devices.pop(update.device_id, None)
        else:
            devices[update.device_id] = update.keys
        if not is_bounded(devices):
            self._mark(row.user_id, row, update.stream_id)
            return
        streams = [*row.streams, update.stream_id][-MAX_STREAMS:]
        new = msgspec.structs.replace(row, devices=devices, streams=streams)
        self._write(new, tell=devices != row.devices)

    def _write(self, row: RemoteDevices, *, tell: bool) -> None:
        batch = self._log.begin()
        put_remote_devices(batch, row)
        if tell:
            device_lists.put_change(batch, row.user_id)
        self._append(batch)

    def _append(self, batch: Batch) -> None:
        # Not waited for: the answer to the transaction that brought the update is stored behind it in the same log.
        self._log.append(batch).addErrback(lambda failure: _report.warn("not written: {why}", why=failure.value))


def _same(one: RemoteDevices, other: RemoteDevices) -> bool:
    return (one.loaded, one.devices, one.master, one.self_signing) == (
        other.loaded,
        other.devices,
        other.master,
        other.self_signing,
    )


def _public_keys(key: bytes | None) -> object:
    return None if key is None else orjson.loads(key).get("keys")
