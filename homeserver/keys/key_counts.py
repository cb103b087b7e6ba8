"""How many one-time keys each device has left, kept in memory so that an idle sync costs nothing."""

from collections import OrderedDict
from typing import NamedTuple

from storage.tables.database import Database
from storage.tables.one_time_keys import key_counts


class KeyCounts(NamedTuple):
    """As in `/sync`: `device_one_time_keys_count` and `device_unused_fallback_key_types`."""

    one_time: dict[str, int]
    unused_fallback: list[str]


class KeyCountCache:
    """The newest counts of the devices that asked lately, at most ``limit`` of them."""

    def __init__(self, database: Database, limit: int = 20_000) -> None:
        self._database = database
        self._limit = limit
        self._counts: OrderedDict[tuple[str, str], KeyCounts] = OrderedDict()
        self._loading: dict[tuple[str, str], object] = {}

    def cached(self, user_id: str, device_id: str) -> KeyCounts | None:
        """The counts when they are in memory; else None, and :meth:`get` fetches them."""
        return self._counts.get((user_id, device_id))

    async def get(self, user_id: str, device_id: str) -> KeyCounts:
        """The counts of a device; reads the database only when something changed since the last time."""
        device = (user_id, device_id)
        if (counts := self._counts.get(device)) is not None:
            self._counts.move_to_end(device)
            return counts
        # Kept only if this is still the newest read when it ends and nothing changed meanwhile.
        token = self._loading[device] = object()
        try:
            counts = KeyCounts(*await self._database.run_single(lambda cur: key_counts(cur, user_id, device_id)))
            if self._loading.get(device) is token:
                self._keep(device, counts)
        finally:
            if self._loading.get(device) is token:
                del self._loading[device]
        return counts

    def _keep(self, device: tuple[str, str], counts: KeyCounts) -> None:
        self._counts[device] = counts
        if len(self._counts) > self._limit:
            self._counts.popitem(last=False)

    def changed(self, user_id: str, device_id: str) -> None:
        """Keys of this device were uploaded, claimed or deleted."""
        self._counts.pop((user_id, device_id), None)
        self._loading.pop((user_id, device_id), None)
