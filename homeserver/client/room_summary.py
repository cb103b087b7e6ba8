"""GET /room_summary/{roomIdOrAlias} (room_summary.yaml)."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.membership import Membership
from homeserver.rooms.overview import Overviews
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route
from storage.log import rooms as room_log
from storage.log.append import Log


class RoomSummary:
    """Tells what a room is like before one joins it, also to people without an account."""

    def __init__(self, log: Log, membership: Membership, overviews: Overviews) -> None:
        self._log = log
        self._membership = membership
        self._overviews = overviews

    def routes(self) -> list[Route]:
        """The operations of this module, and the two paths by which clients called it before it was specified."""
        path = "/_matrix/client/v1/room_summary/{roomIdOrAlias}"
        unstable = "/_matrix/client/unstable/im.nheko.summary"
        return [
            Route(
                "GET", path, self.get_room_summary, Auth.OPTIONAL,
                aliases=(unstable + "/summary/{roomIdOrAlias}", unstable + "/rooms/{roomIdOrAlias}/summary"),
            )
        ]  # fmt: skip

    def get_room_summary(self, call: Call) -> dict[str, Any]:
        """The room's summary; whoever may not know of the room is told that there is none."""
        room_id = self._membership.resolve(call.params["roomIdOrAlias"])
        user_id = None if call.sender is None else call.sender.user_id
        with self._log.snapshot() as snapshot:
            overview = self._overviews.of(snapshot, room_id)
            if overview is None or not self._overviews.may_know(snapshot, user_id, room_id, overview):
                raise MatrixError(404, "M_NOT_FOUND", "Room not found")
            if user_id is None:
                return overview
            record = room_log.membership_in(snapshot, user_id, room_id)
            return {**overview, "membership": "leave" if record is None else record.membership}
