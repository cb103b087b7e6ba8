"""GET /joined_rooms (list_joined_rooms.yaml)."""

from typing import Any

from homeserver.rooms.memberships import Memberships
from homeserver.web.call import Call
from homeserver.web.routes import Route


class ListJoinedRooms:
    """Tells users which rooms they are in."""

    def __init__(self, memberships: Memberships) -> None:
        self._memberships = memberships

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("GET", "/_matrix/client/v3/joined_rooms", self.get_joined_rooms)]

    def get_joined_rooms(self, call: Call) -> dict[str, Any]:
        """The ids of all rooms that the caller is joined to."""
        return {"joined_rooms": list(self._memberships.joined_rooms(call.requester.user_id))}
