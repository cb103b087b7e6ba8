"""Rooms, for the operator's commands: deleting one, keeping people out of one."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_id
from homeserver.admin.operator_socket import PREFIX
from homeserver.rooms.deletion import Deletion, as_facts
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class DeleteRequest(msgspec.Struct):
    """``block`` is why people are to be kept out of the room from now on; without it they are not."""

    block: str | None = None


class BlockRequest(msgspec.Struct):
    """Why people are to be kept out."""

    reason: str = ""


class RoomOperations:
    """``folkmoot room``, on the side of the server."""

    def __init__(self, deletion: Deletion) -> None:
        self._deletion = deletion

    def routes(self) -> list[Route]:
        """The routes."""
        room = f"{PREFIX}/rooms/{{roomId}}"
        return [
            Route("DELETE", room, self.delete, Auth.NONE),
            Route("GET", f"{room}/deletion", self.progress, Auth.NONE),
            Route("PUT", f"{room}/block", self.block, Auth.NONE),
            Route("DELETE", f"{room}/block", self.unblock, Auth.NONE),
            Route("GET", f"{PREFIX}/blocked_rooms", self.blocked, Auth.NONE),
        ]

    async def delete(self, call: Call) -> dict[str, Any]:
        """Begin to delete a room."""
        wish = call.json(DeleteRequest)
        return as_facts(await self._deletion.delete(room_of(call), "operator", wish.block))

    def progress(self, call: Call) -> dict[str, Any]:
        """How far that is. MatrixError 404."""
        removal = self._deletion.progress(room_of(call))
        if removal is None:
            raise MatrixError(404, "M_NOT_FOUND", "That room is not being deleted")
        return as_facts(removal)

    async def block(self, call: Call) -> dict[str, Any]:
        """Keep people of this server out of a room."""
        await self._deletion.block(room_of(call), call.json(BlockRequest).reason)
        return {}

    async def unblock(self, call: Call) -> dict[str, Any]:
        """Let them in again."""
        await self._deletion.unblock(room_of(call))
        return {}

    def blocked(self, call: Call) -> dict[str, Any]:
        """Which rooms are blocked, and why."""
        return {"blocked_rooms": self._deletion.blocked()}


def room_of(call: Call) -> str:
    """The room that a path names. MatrixError 400 for what is no room id."""
    room_id = call.params["roomId"]
    if not is_valid_room_id(room_id):
        raise MatrixError(400, "M_INVALID_PARAM", f"{room_id} is not a room id")
    return room_id
