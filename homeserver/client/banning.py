"""POST /rooms/{roomId}/ban and /unban (banning.yaml)."""

from typing import Any

import msgspec

from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Route


class BanRequest(msgspec.Struct):
    """Body of ban and unban."""

    user_id: str
    reason: str | None = None


class Banning:
    """Bans users and lifts bans."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [
            Route("POST", "/_matrix/client/v3/rooms/{roomId}/ban", self.post_ban),
            Route("POST", "/_matrix/client/v3/rooms/{roomId}/unban", self.post_unban),
        ]

    async def post_ban(self, call: Call) -> dict[str, Any]:
        """Ban somebody, whether in the room or not."""
        request = call.json(BanRequest)
        await self._membership.ban(call.requester, call.params["roomId"], request.user_id, request.reason)
        return {}

    async def post_unban(self, call: Call) -> dict[str, Any]:
        """Lift a ban."""
        request = call.json(BanRequest)
        await self._membership.unban(call.requester, call.params["roomId"], request.user_id, request.reason)
        return {}
