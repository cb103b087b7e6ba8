"""The directory of listed rooms. Server-Server API, "Public Room Directory"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import ListsRooms
from federation.rules.errors import MatrixError

MAX_LIMIT = 500
PATH = "/_matrix/federation/v1/publicRooms"


class PublicRoomsEndpoints:
    """Operations of `public_rooms.yaml`. ``enabled`` False keeps the directory to our own users."""

    def __init__(self, rooms: ListsRooms, enabled: bool = True) -> None:
        self._rooms = rooms
        self._enabled = enabled

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", PATH, self.get), Operation("POST", PATH, self.post)]

    async def get(self, request: PeerRequest) -> Any:
        """A page of the directory."""
        limit = request.number("limit", 0, 0, MAX_LIMIT)
        return self._page(limit or None, request.query("since"), None, None)

    async def post(self, request: PeerRequest) -> Any:
        """A page of what matches a filter."""
        content = request.object()
        limit, since = content.get("limit"), content.get("since")
        wanted = content.get("filter", {})
        if not (limit is None or type(limit) is int) or not (since is None or isinstance(since, str)):
            raise MatrixError(400, "M_BAD_JSON", "limit is an integer and since a string")
        if not isinstance(wanted, dict):
            raise MatrixError(400, "M_BAD_JSON", "filter is an object")
        term, types = wanted.get("generic_search_term"), wanted.get("room_types")
        if not (term is None or isinstance(term, str)) or not (types is None or isinstance(types, list)):
            raise MatrixError(400, "M_BAD_JSON", "filter has a string and a list")
        if types is not None:
            types = [entry for entry in types if entry is None or isinstance(entry, str)]
        return self._page(None if limit is None else max(0, min(limit, MAX_LIMIT)), since, term, types)

    def _page(self, limit: int | None, since: str | None, term: str | None, types: list[str | None] | None) -> Any:
        if not self._enabled:
            raise MatrixError(403, "M_FORBIDDEN", "The room directory is not open to other servers")
        return self._rooms.public_rooms(limit, since, term, types)
