"""POST /rooms/{roomId}/upgrade (room_upgrades.yaml)."""

from typing import Any

import msgspec

from homeserver.rooms.upgrade import Upgrade
from homeserver.web.call import Call
from homeserver.web.routes import Route


class UpgradeRequest(msgspec.Struct):
    """Body of upgrade."""

    new_version: str
    additional_creators: list[str] | None = None


class RoomUpgrades:
    """Moves rooms to other versions."""

    def __init__(self, upgrade: Upgrade) -> None:
        self._upgrade = upgrade

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("POST", "/_matrix/client/v3/rooms/{roomId}/upgrade", self.post_upgrade, limit="room_creation")]

    async def post_upgrade(self, call: Call) -> dict[str, Any]:
        """Replace the room by one of another version."""
        request = call.json(UpgradeRequest)
        replacement = await self._upgrade.upgrade(
            call.requester, call.params["roomId"], request.new_version, request.additional_creators or []
        )
        return {"replacement_room": replacement}
