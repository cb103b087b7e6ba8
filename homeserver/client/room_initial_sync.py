"""GET /rooms/{roomId}/initialSync (room_initial_sync.yaml)."""

from typing import Any

from homeserver.sync.room_info import RoomInfos
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route
from storage.log.append import Log

DEFAULT_LIMIT = 20
MAX_LIMIT = 500


class RoomInitialSync:
    """Shows a room at a glance, also to those who only look in (room previews)."""

    def __init__(self, log: Log, infos: RoomInfos) -> None:
        self._log = log
        self._infos = infos

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/initialSync"
        return [Route("GET", path, self.get_room_initial_sync, Auth.GUEST)]

    def get_room_initial_sync(self, call: Call) -> dict[str, Any]:
        """State and newest messages of a room, as the caller may see them."""
        limit = call.query_int("limit", DEFAULT_LIMIT, 0, MAX_LIMIT)
        with self._log.snapshot() as snapshot:
            return self._infos.room(snapshot, call.requester, call.params["roomId"], limit)
