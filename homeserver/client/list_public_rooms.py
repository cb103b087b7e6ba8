"""The room directory (list_public_rooms.yaml)."""

from typing import Any, Protocol

import msgspec

from federation.rules.errors import MatrixError
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.public_rooms import MAX_LIMIT, PublicRooms
from homeserver.rooms.room import Rooms
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route


class DirectoryFilter(msgspec.Struct):
    """``filter`` of POST /publicRooms."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class PublicRoomsRequest(msgspec.Struct):
    """Body of POST /publicRooms."""

    limit: int | None = None
    since: str | None = None
    filter: DirectoryFilter | None = None
    include_all_networks: bool | None = None
    third_party_instance_id: str | None = None


class VisibilityRequest(msgspec.Struct):
    """Body of PUT /directory/list/room/{roomId}."""

    visibility: str | None = None


WISHES = ("limit", "since", "filter", "include_all_networks", "third_party_instance_id")
"""What of the body of POST /publicRooms goes to another server."""


class RemoteRooms(Protocol):
    """Room directories of other servers."""

    async def public_rooms(self, server: str, wish: dict[str, Any]) -> dict[str, Any]:
        """A page of another server's directory; ``wish`` is the body of POST /publicRooms."""


class ListPublicRooms:
    """Lists rooms and sets whether one is listed."""

    def __init__(
        self,
        rooms: Rooms,
        aliases: Aliases,
        public_rooms: PublicRooms,
        remote: RemoteRooms | None = None,
        *,
        without_auth: bool = True,
    ) -> None:
        """``without_auth``: the directory is for people who are not logged in as well."""
        self._rooms = rooms
        self._aliases = aliases
        self._public_rooms = public_rooms
        self._remote = remote
        self._readers = Auth.NONE if without_auth else Auth.GUEST

    def routes(self) -> list[Route]:
        """The operations of this module."""
        listed = "/_matrix/client/v3/directory/list/room/{roomId}"
        return [
            Route("GET", listed, self.get_visibility, Auth.NONE),
            Route("PUT", listed, self.put_visibility),
            Route("GET", "/_matrix/client/v3/publicRooms", self.get_public_rooms, self._readers),
            Route("POST", "/_matrix/client/v3/publicRooms", self.post_public_rooms, Auth.GUEST),
        ]

    def get_visibility(self, call: Call) -> dict[str, Any]:
        """Whether a room is listed."""
        room = self._rooms.get(call.params["roomId"])
        return {"visibility": "public" if self._aliases.is_published(room.room_id) else "private"}

    async def put_visibility(self, call: Call) -> dict[str, Any]:
        """List a room or take it out: for those who may set its canonical alias, and for admins."""
        room = self._rooms.get(call.params["roomId"])
        visibility = call.json(VisibilityRequest).visibility or "public"
        if visibility not in ("public", "private"):
            raise MatrixError(400, "M_INVALID_PARAM", "visibility is public or private")
        user_id = call.requester.user_id
        if not call.requester.is_admin:
            if room.membership(user_id) != "join":
                raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
            levels = room.power_levels
            if levels.user(user_id) < levels.event("m.room.canonical_alias", True):
                raise MatrixError(403, "M_FORBIDDEN", "You may not change whether this room is listed")
        batch = self._rooms.log.begin()
        self._aliases.publish(batch, room.room_id, visibility == "public")
        await self._rooms.log.append(batch)
        return {}

    async def get_public_rooms(self, call: Call) -> dict[str, Any]:
        """A page of this server's listed rooms, or of the ``server`` that the caller names."""
        limit = call.query_int("limit", MAX_LIMIT, 0, MAX_LIMIT)
        server = call.query("server")
        if server is not None and server != self._rooms.server_name:
            return await self._elsewhere(server, {"limit": limit, "since": call.query("since")})
        return self._public_rooms.page(limit, call.query("since"), None, None).body()

    async def post_public_rooms(self, call: Call) -> dict[str, Any]:
        """A page of listed rooms that match a filter."""
        request = call.json(PublicRoomsRequest)
        if request.include_all_networks and request.third_party_instance_id is not None:
            raise MatrixError(400, "M_INVALID_PARAM", "Either all networks or one of them")
        server = call.query("server")
        if server is not None and server != self._rooms.server_name:
            return await self._elsewhere(server, call.json_object())
        wanted = request.filter or DirectoryFilter()
        return self._public_rooms.page(
            request.limit, request.since, wanted.generic_search_term, wanted.room_types
        ).body()

    async def _elsewhere(self, server: str, asked: dict[str, Any]) -> dict[str, Any]:
        if self._remote is None:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not federate")
        return await self._remote.public_rooms(server, {key: asked[key] for key in WISHES if asked.get(key) is not None})
