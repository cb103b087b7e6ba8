"""Room aliases (directory.yaml)."""

from typing import Any, Protocol

import msgspec

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_alias, is_valid_room_id, server_name_of
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import append_if_allowed, asks_first, stage_if_allowed
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.web.call import Call, Requester
from homeserver.web.routes import Auth, Route

MAX_ALIASES_PER_ROOM = 1000


class AliasRequest(msgspec.Struct):
    """Body of PUT."""

    room_id: str


class RemoteAliases(Protocol):
    """Aliases of other servers."""

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The room behind an alias, and servers that are in it. MatrixError 404 when there is none."""


class Directory:
    """Makes, resolves and deletes aliases of this server."""

    def __init__(self, rooms: Rooms, aliases: Aliases, remote: RemoteAliases | None = None) -> None:
        self._rooms = rooms
        self._aliases = aliases
        self._remote = remote

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v3/directory/room/{roomAlias}"
        return [
            Route("PUT", path, self.put_alias),
            Route("GET", path, self.get_alias, Auth.NONE),
            Route("DELETE", path, self.delete_alias),
            Route("GET", "/_matrix/client/v3/rooms/{roomId}/aliases", self.get_aliases),
        ]

    async def put_alias(self, call: Call) -> dict[str, Any]:
        """Point a new alias of this server to a room that the caller is in; an alias that exists stays as it is."""
        alias = self._local(call.params["roomAlias"])
        room_id = call.json(AliasRequest).room_id
        if not is_valid_room_id(room_id):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a room id")
        user_id = call.requester.user_id
        if self._aliases.find(alias) is not None:
            raise MatrixError(409, "M_UNKNOWN", f"Room alias {alias} already exists")
        room = self._rooms.get(room_id)
        if room.membership(user_id) != "join" and not call.requester.is_admin:
            raise MatrixError(403, "M_FORBIDDEN", "Only members of a room may give it an alias")
        with self._rooms.log.snapshot() as snapshot:
            if len(self._aliases.of_room(snapshot, room_id)) >= MAX_ALIASES_PER_ROOM:
                raise MatrixError(403, "M_FORBIDDEN", "The room has too many aliases")
        batch = self._rooms.log.begin()
        self._aliases.put(batch, alias, room_id, user_id)
        await self._rooms.log.append(batch)
        return {}

    async def get_alias(self, call: Call) -> dict[str, Any]:
        """The room behind an alias, and the servers to ask for it."""
        alias = call.params["roomAlias"]
        if not is_valid_room_alias(alias):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a valid room alias")
        own = server_name_of(alias) == self._rooms.server_name
        if not own and self._remote is not None:
            found, servers = await self._remote.resolve(alias)
            return {"room_id": found, "servers": servers}
        room_id = self._aliases.room_of(alias) if own else None
        if room_id is None:
            raise MatrixError(404, "M_NOT_FOUND", f"Room alias {alias} not found")
        return {"room_id": room_id, "servers": [self._rooms.server_name]}

    async def delete_alias(self, call: Call) -> dict[str, Any]:
        """Take an alias away: its creator may, who may set the canonical alias of the room may, admins may."""
        alias = self._local(call.params["roomAlias"])
        found = self._aliases.find(alias)
        if found is None:
            raise MatrixError(404, "M_NOT_FOUND", f"Room alias {alias} not found")
        if not self._may_delete(call.requester, found.creator, found.room_id):
            raise MatrixError(403, "M_FORBIDDEN", "You may not delete this alias")
        batch = self._rooms.log.begin()
        self._aliases.delete(batch, alias, found.room_id)
        room = self._rooms.find(found.room_id)
        draft = None if room is None else self._without(room, call.requester.user_id, alias)
        policed = room is not None and draft is not None and asks_first(self._rooms, room, draft)
        # Deleting the alias does not depend on the right to change the room.
        if room is not None and draft is not None and not policed:
            stage_if_allowed(batch, room, draft)
        await self._rooms.log.append(batch)
        if draft is not None and policed:
            await append_if_allowed(self._rooms, found.room_id, draft)
        return {}

    def get_aliases(self, call: Call) -> dict[str, Any]:
        """The aliases of a room on this server, for its members and for anybody where history is world readable."""
        room = self._rooms.get(call.params["roomId"])
        world = room.content("m.room.history_visibility").get("history_visibility") == "world_readable"
        if not world and room.membership(call.requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        with self._rooms.log.snapshot() as snapshot:
            return {"aliases": self._aliases.of_room(snapshot, room.room_id)}

    def _local(self, alias: str) -> str:
        if not is_valid_room_alias(alias):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a valid room alias")
        if server_name_of(alias) != self._rooms.server_name:
            raise MatrixError(400, "M_INVALID_PARAM", "Aliases of other servers are made there")
        return alias

    def _may_delete(self, requester: Requester, creator: str, room_id: str) -> bool:
        if requester.user_id == creator or requester.is_admin:
            return True
        room = self._rooms.find(room_id)
        if room is None or room.membership(requester.user_id) != "join":
            return False
        levels = room.power_levels
        return levels.user(requester.user_id) >= levels.event("m.room.canonical_alias", True)

    def _without(self, room: Room, user_id: str, alias: str) -> Draft | None:
        """The m.room.canonical_alias of a room without an alias, None if it is not in it."""
        current = room.content("m.room.canonical_alias")
        content = dict(current)
        alternatives = content.get("alt_aliases")
        if content.get("alias") == alias:
            del content["alias"]
        if isinstance(alternatives, list) and alias in alternatives:
            content["alt_aliases"] = [other for other in alternatives if other != alias]
        return None if content == current else Draft(user_id, "m.room.canonical_alias", content, state_key="")
