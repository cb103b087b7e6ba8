"""POST /rooms/{roomId}/kick (kicking.yaml)."""

from typing import Any

import msgspec

from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Route


class KickRequest(msgspec.Struct):
    """Body of kick."""

    user_id: str
    reason: str | None = None


class Kicking:
    """Removes users from rooms."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("POST", "/_matrix/client/v3/rooms/{roomId}/kick", self.post_kick)]

    async def post_kick(self, call: Call) -> dict[str, Any]:
        """Remove somebody who is in the room or invited."""
        request = call.json(KickRequest)
        await self._membership.kick(call.requester, call.params["roomId"], request.user_id, request.reason)
        return {}
