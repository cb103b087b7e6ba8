"""What the outbox follower does with rows about devices and keys."""

from typing import Any

from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.device_lists import KIND
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.outbox_follower import Bring
from storage.log import device_lists, inbox, read, transactions
from storage.log.append import Batch, Log


class DeviceChanges:
    """Brings changes of devices and keys into the log, and makes the caches forget."""

    def __init__(self, log: Log, keys: KeyCache, counts: KeyCountCache, devices: DeviceDirectory) -> None:
        self._log = log
        self._keys = keys
        self._counts = counts
        self._devices = devices

    def by_kind(self) -> dict[str, Bring]:
        """For the follower: the kinds of rows that are understood here."""
        return {KIND: self.keys_changed, "device_changed": self.device_changed, "device_deleted": self.device_deleted}

    def keys_changed(self, batch: Batch, payload: dict[str, Any]) -> None:
        """Other keys or signatures; see :func:`homeserver.keys.device_lists.record_change`."""
        user_id, viewer = payload["user_id"], payload.get("only_for")
        self._keys.changed(user_id)
        if viewer is None:
            device_lists.put_change(batch, user_id, payload.get("device_id", ""))
        else:
            self._keys.changed(viewer)
            device_lists.put_private_change(batch, user_id, viewer)

    def device_changed(self, batch: Batch, payload: dict[str, Any]) -> None:
        """A device is new or has another name."""
        self._devices.changed(payload["user_id"])
        self._keys.changed(payload["user_id"])
        device_lists.put_change(batch, payload["user_id"], payload.get("device_id", ""))

    def device_deleted(self, batch: Batch, payload: dict[str, Any]) -> None:
        """A device is gone: nobody will read its inbox or resume from its cursor, and its transaction ids are free again."""
        user_id, device_id = payload["user_id"], payload["device_id"]
        self._counts.changed(user_id, device_id)
        self.device_changed(batch, payload)
        with self._log.snapshot() as snapshot:
            inbox.clear_inbox(batch, snapshot, user_id, device_id)
            transactions.forget_device(batch, snapshot, user_id, device_id)
        read.delete_device_cursor(batch, user_id, device_id)
