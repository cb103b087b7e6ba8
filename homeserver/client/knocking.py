"""POST /knock/{roomIdOrAlias} (knocking.yaml)."""

from typing import Any

import msgspec

from homeserver.client.joining import servers_named
from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Route


class KnockRequest(msgspec.Struct):
    """Body of knock."""

    reason: str | None = None


class Knocking:
    """Lets users ask to be let in."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("POST", "/_matrix/client/v3/knock/{roomIdOrAlias}", self.post_knock, limit="joins.local")]

    async def post_knock(self, call: Call) -> dict[str, Any]:
        """Knock on a room by id or alias."""
        room_id, servers = await self._membership.find_room(call.params["roomIdOrAlias"], servers_named(call))
        await self._membership.knock(call.requester, room_id, call.json(KnockRequest).reason, servers)
        return {"room_id": room_id}
