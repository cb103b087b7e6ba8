"""Profiles and aliases. Server-Server API, "Queries"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import KnowsUsers, ListsRooms
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_alias, is_valid_user_id, server_name_of

V1 = "/_matrix/federation/v1"


class QueryEndpoints:
    """Operations of `query.yaml`, about our own users and aliases alone."""

    def __init__(
        self, server_name: str, users: KnowsUsers, rooms: ListsRooms, profiles_enabled: bool = True
    ) -> None:
        self._server_name = server_name
        self._users = users
        self._rooms = rooms
        self._profiles_enabled = profiles_enabled

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", V1 + "/query/profile", self.profile),
            Operation("GET", V1 + "/query/directory", self.directory),
        ]

    async def profile(self, request: PeerRequest) -> Any:
        """A user's profile, or one field of it."""
        user_id, field = request.required("user_id"), request.query("field")
        if not is_valid_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise MatrixError(400, "M_INVALID_PARAM", "That user is not of this server")
        if not self._profiles_enabled:
            raise MatrixError(403, "M_FORBIDDEN", "Profiles are not open to other servers")
        profile = await self._users.profile(user_id)
        if field is None:
            return profile
        return {field: profile[field]} if field in profile else {}

    async def directory(self, request: PeerRequest) -> Any:
        """The room behind an alias."""
        alias = request.required("room_alias")
        if not is_valid_room_alias(alias) or server_name_of(alias) != self._server_name:
            raise MatrixError(400, "M_INVALID_PARAM", "That alias is not of this server")
        found = self._rooms.alias(alias)
        if found is None:
            raise MatrixError(404, "M_NOT_FOUND", f"Room alias {alias} not found")
        return {"room_id": found[0], "servers": found[1]}
