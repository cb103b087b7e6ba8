"""Devices (Client-Server API, "Device Management")."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.accounts.devices import MAX_DEVICES_AT_ONCE, Devices, device_json
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.router import Auth, Route


class RenameRequest(msgspec.Struct):
    """The body of `PUT /devices/{deviceId}`."""

    display_name: str | None = None


class DeleteRequest(msgspec.Struct):
    """The body of `POST /delete_devices`."""

    devices: list[str]


class DeviceEndpoints:
    """Routes of `device_management.yaml`."""

    def __init__(self, devices: Devices, interactive_auth: InteractiveAuth) -> None:
        self._devices = devices
        self._interactive_auth = interactive_auth

    def routes(self) -> list[Route]:
        """The routes."""
        one = "/_matrix/client/v3/devices/{deviceId}"
        return [
            Route("GET", "/_matrix/client/v3/devices", self.list, Auth.GUEST),
            Route("GET", one, self.get, Auth.GUEST),
            Route("PUT", one, self.rename, Auth.GUEST),
            Route("DELETE", one, self.delete),
            Route("POST", "/_matrix/client/v3/delete_devices", self.delete_several),
        ]

    async def list(self, call: Call) -> dict[str, Any]:
        """All devices of the caller."""
        rows = await self._devices.all_of(call.requester.user_id)
        return {"devices": [device_json(row) for row in rows]}

    async def get(self, call: Call) -> dict[str, Any]:
        """One device of the caller."""
        return device_json(await self._devices.get(call.requester.user_id, call.params["deviceId"]))

    async def rename(self, call: Call) -> dict[str, Any]:
        """Change the display name."""
        name = call.json(RenameRequest).display_name
        await self._devices.rename(call.requester.user_id, call.params["deviceId"], name)
        return {}

    async def delete(self, call: Call) -> dict[str, Any] | Answer:
        """Delete one device after the caller has proved who they are."""
        device_id = call.params["deviceId"]
        challenge = await self._interactive_auth.require(call, f"delete device {device_id}")
        if challenge is not None:
            return challenge
        await self._devices.delete(call.requester.user_id, [device_id])
        return {}

    async def delete_several(self, call: Call) -> dict[str, Any] | Answer:
        """Delete several devices after the caller has proved who they are."""
        device_ids = call.json(DeleteRequest).devices
        if len(device_ids) > MAX_DEVICES_AT_ONCE:
            raise MatrixError(400, "M_INVALID_PARAM", "Too many devices at once")
        challenge = await self._interactive_auth.require(call, "delete devices")
        if challenge is not None:
            return challenge
        await self._devices.delete(call.requester.user_id, sorted(set(device_ids)))
        return {}
