"""POST /rooms/{roomId}/leave and /forget (leaving.yaml)."""

from typing import Any

import msgspec

from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route


class LeaveRequest(msgspec.Struct):
    """Body of leave."""

    reason: str | None = None


class Leaving:
    """Lets users out of rooms."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [
            Route("POST", "/_matrix/client/v3/rooms/{roomId}/leave", self.post_leave, Auth.GUEST),
            Route("POST", "/_matrix/client/v3/rooms/{roomId}/forget", self.post_forget),
        ]

    async def post_leave(self, call: Call) -> dict[str, Any]:
        """Leave a room, decline an invite, take a knock back."""
        await self._membership.leave(call.requester, call.params["roomId"], call.json(LeaveRequest).reason)
        return {}

    async def post_forget(self, call: Call) -> dict[str, Any]:
        """Stop showing a room that the caller has left."""
        await self._membership.forget(call.requester, call.params["roomId"])
        return {}
