"""Presence: set one's own, look at that of people one shares a room with (Client-Server API, "Presence")."""

from typing import Any, Literal, Protocol

import msgspec

from federation.rules.errors import MatrixError
from homeserver.client.filter import own_user
from homeserver.ephemeral.presence import MAX_STATUS_BYTES, Presence
from homeserver.ephemeral.presence_memory import PresenceMemory
from homeserver.web.call import Call
from homeserver.web.router import Route


class PresenceRequest(msgspec.Struct):
    """`PUT /presence/{userId}/status`."""

    presence: Literal["online", "offline", "unavailable"]
    status_msg: str | None = None


class SharedRooms(Protocol):
    """Who shares rooms with whom."""

    def share_room(self, one: str, other: str) -> bool:
        """Whether both are joined to the same room."""


class PresenceStatus:
    """The endpoints of `presence.yaml`."""

    def __init__(self, presence: Presence, memory: PresenceMemory, memberships: SharedRooms) -> None:
        self._presence = presence
        self._memory = memory
        self._memberships = memberships

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/presence/{userId}/status"
        return [
            Route("PUT", path, self.set_presence, body_limit=16 * 1024),
            Route("GET", path, self.get_presence),
        ]

    async def set_presence(self, call: Call) -> dict[str, Any]:
        """Set the requesting user's presence; nothing happens on a server without presence."""
        user_id = own_user(call)
        body = call.json(PresenceRequest)
        if body.status_msg is not None and len(body.status_msg.encode()) > MAX_STATUS_BYTES:
            raise MatrixError(400, "M_TOO_LARGE", "The status message is too long")
        if self._presence.set(user_id, call.requester.device_id or "", body.presence, body.status_msg):
            await self._memory.save([user_id])
        return {}

    def get_presence(self, call: Call) -> dict[str, Any]:
        """The presence of a user; strangers are refused whether or not the user exists."""
        user_id, own = call.params["userId"], call.requester.user_id
        if user_id != own and not self._memberships.share_room(own, user_id):
            raise MatrixError(403, "M_FORBIDDEN", "You are not allowed to see their presence")
        return self._presence.content(user_id)
