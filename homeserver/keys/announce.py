"""What other servers are told when devices or keys of our users change.

Server-Server API, "Device Management" (m.device_list_update) and "End-to-End Encryption" (m.signing_key_update).
"""

from typing import Any

import orjson

from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_cache import KeyCache, UserKeys

MAX_DEVICES = 90
"""Devices told of one user at once, so that they fit a transaction; whoever needs more asks for the list."""


class DeviceAnnouncements:
    """The port `DeviceUpdates` of the queues."""

    def __init__(self, keys: KeyCache, devices: DeviceDirectory, *, with_names: bool) -> None:
        """``with_names``: whether other servers may know how people call their devices."""
        self._keys = keys
        self._devices = devices
        self._with_names = with_names

    async def updates(self, user_id: str, device_id: str) -> list[tuple[str, dict[str, Any]]]:
        """EDUs for a change of one device; for ``device_id`` empty, of the user's signing keys and all devices."""
        found = (await self._keys.get([user_id])).get(user_id)
        if found is None:
            found = UserKeys({}, {})
        await self._devices.load([user_id])
        existing = self._devices.known(user_id) or frozenset()
        if device_id:
            return [("m.device_list_update", self._device(user_id, device_id, found, device_id in existing))]
        told = list(found.devices)[:MAX_DEVICES]
        updates = [("m.device_list_update", self._device(user_id, name, found, True)) for name in told]
        return [*_signing_keys(user_id, found), *updates]

    def _device(self, user_id: str, device_id: str, keys: UserKeys, exists: bool) -> dict[str, Any]:
        content: dict[str, Any] = {"user_id": user_id, "device_id": device_id}
        if not exists:
            return {**content, "deleted": True}
        published = keys.devices.get(device_id)
        if published is not None:
            value = orjson.loads(published)
            name = value.pop("unsigned", {}).get("device_display_name")
            content["keys"] = value
            if self._with_names and name is not None:
                content["device_display_name"] = name
        return content


def _signing_keys(user_id: str, keys: UserKeys) -> list[tuple[str, dict[str, Any]]]:
    """The keys that others may see, as one EDU if there are any."""
    content: dict[str, Any] = {"user_id": user_id}
    for usage, field in (("master", "master_key"), ("self_signing", "self_signing_key")):
        if usage in keys.cross_signing:
            content[field] = orjson.loads(keys.cross_signing[usage])
    return [("m.signing_key_update", content)] if len(content) > 1 else []
