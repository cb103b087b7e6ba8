"""Fully read markers (Client-Server API, module "Fully read markers")."""

from typing import Any

import msgspec

from homeserver.client.typing import JoinedUsers, require_joined
from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.receipts import FULLY_READ, PRIVATE, READ, Receipts
from homeserver.web.call import Call
from homeserver.web.router import Route


class ReadMarkersRequest(msgspec.Struct):
    """`POST /rooms/{roomId}/read_markers`; event ids."""

    fully_read: str | None = msgspec.field(name=FULLY_READ, default=None)
    read: str | None = msgspec.field(name=READ, default=None)
    read_private: str | None = msgspec.field(name=PRIVATE, default=None)


class ReadMarkers:
    """The endpoint of `read_markers.yaml`."""

    def __init__(self, receipts: Receipts, memberships: JoinedUsers, presence: Presence) -> None:
        self._receipts = receipts
        self._memberships = memberships
        self._presence = presence

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/read_markers"
        return [Route("POST", path, self.set_read_markers, body_limit=16 * 1024)]

    async def set_read_markers(self, call: Call) -> dict[str, Any]:
        """Set the fully read marker and, if given, receipts; all in one commit."""
        room_id, user_id = call.params["roomId"], call.requester.user_id
        body = call.json(ReadMarkersRequest)
        require_joined(self._memberships, user_id, room_id)
        self._presence.active(user_id)
        given = {FULLY_READ: body.fully_read, READ: body.read, PRIVATE: body.read_private}
        markers = {type_: event_id for type_, event_id in given.items() if event_id is not None}
        if markers:
            await self._receipts.read_up_to(user_id, room_id, markers)
        return {}
