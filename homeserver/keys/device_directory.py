"""Which devices an account has, kept in memory: every to-device message asks."""

from collections import OrderedDict
from collections.abc import Iterable

from storage.tables.database import Database
from storage.tables.device_keys import existing_devices

Devices = frozenset[str]

ATTEMPTS = 5
"""How often the devices are read again because some came or went during the read."""


class DeviceDirectory:
    """Devices of the local accounts that were asked for lately, at most ``limit`` accounts."""

    def __init__(self, database: Database, limit: int = 50_000) -> None:
        self._database = database
        self._limit = limit
        self._devices: OrderedDict[str, Devices] = OrderedDict()
        self._changes = 0

    def known(self, user_id: str) -> Devices | None:
        """The account's devices when they are in memory."""
        return self._devices.get(user_id)

    async def load(self, user_ids: Iterable[str]) -> None:
        """Bring the devices of these accounts into memory; unknown and deactivated accounts have none."""
        missing = [user_id for user_id in user_ids if user_id not in self._devices]
        rows: list[tuple[str, str]] = []
        for _ in range(ATTEMPTS if missing else 0):
            changes = self._changes
            rows = await self._database.run_single(lambda cur: existing_devices(cur, missing))
            if changes == self._changes:
                break
        found: dict[str, list[str]] = {}
        for user_id, device_id in rows:
            found.setdefault(user_id, []).append(device_id)
        for user_id, device_ids in found.items():
            self._devices[user_id] = frozenset(device_ids)
        while len(self._devices) > self._limit:
            self._devices.popitem(last=False)

    def changed(self, user_id: str, device_id: str = "") -> None:
        """A device of this account came or went: to be said right after the commit."""
        self._changes += 1
        self._devices.pop(user_id, None)
