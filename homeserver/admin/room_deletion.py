"""Deleting and blocking rooms over HTTP, for administrators: in the shapes of Synapse's admin API, as tools expect them.

Each room has one deletion at a time, whose id is derived from the room and the time when it began. A deletion always
removes everything (``purge``).
"""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.admin.room_operations import room_of
from homeserver.rooms.deletion import FINISHED, Deletion
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route
from storage.log.removal import Removal


class DeleteRequest(msgspec.Struct):
    """The body of the DELETE. Moving the members into a new room is not offered."""

    block: bool = False
    purge: bool = True
    force_purge: bool = False
    message: str = ""
    new_room_user_id: str | None = None


class BlockRequest(msgspec.Struct):
    """The body of `PUT …/block`."""

    block: bool


class RoomDeletion:
    """The routes."""

    def __init__(self, deletion: Deletion) -> None:
        self._deletion = deletion

    def routes(self) -> list[Route]:
        """The routes, for administrators only."""
        one = "/_synapse/admin/v2/rooms/{roomId}"
        block = "/_synapse/admin/v1/rooms/{roomId}/block"
        return [
            Route("DELETE", one, self.delete, Auth.SERVER_ADMIN),
            Route("GET", f"{one}/delete_status", self.status_of_room, Auth.SERVER_ADMIN),
            Route("GET", "/_synapse/admin/v2/rooms/delete_status/{deleteId}", self.status, Auth.SERVER_ADMIN),
            Route("GET", block, self.is_blocked, Auth.SERVER_ADMIN),
            Route("PUT", block, self.block, Auth.SERVER_ADMIN),
        ]

    async def delete(self, call: Call) -> dict[str, Any]:
        """Begin; the answer names the deletion. MatrixError 400 for what is not offered, 404 for an unknown room."""
        wish = call.json(DeleteRequest)
        if not wish.purge:
            raise MatrixError(400, "M_INVALID_PARAM", "purge: a deleted room is always removed as a whole")
        if wish.new_room_user_id is not None:
            raise MatrixError(400, "M_INVALID_PARAM", "new_room_user_id: members are not moved into a new room")
        reason = wish.message or f"by {call.requester.user_id}"
        removal = await self._deletion.delete(room_of(call), call.requester.user_id, reason if wish.block else None)
        return {"delete_id": _id(removal)}

    def status_of_room(self, call: Call) -> dict[str, Any]:
        """The deletion of a room. MatrixError 404."""
        return {"results": [{"delete_id": _id(found), **_status(found)} for found in [self._found(room_of(call))]]}

    def status(self, call: Call) -> dict[str, Any]:
        """A deletion by its id. MatrixError 404."""
        room_id, _, _ = call.params["deleteId"].rpartition("~")
        found = self._found(room_id)
        if _id(found) != call.params["deleteId"]:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such deletion")
        return _status(found)

    def _found(self, room_id: str) -> Removal:
        found = self._deletion.progress(room_id)
        if found is None:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such deletion")
        return found

    def is_blocked(self, call: Call) -> dict[str, Any]:
        """Whether people are kept out of a room."""
        return {"block": room_of(call) in self._deletion.blocked()}

    async def block(self, call: Call) -> dict[str, Any]:
        """Keep people out, or let them in again."""
        room_id, wanted = room_of(call), call.json(BlockRequest).block
        if wanted:
            await self._deletion.block(room_id, f"by {call.requester.user_id}")
        elif room_id in self._deletion.blocked():
            await self._deletion.unblock(room_id)
        return {"block": wanted}


def _id(removal: Removal) -> str:
    return f"{removal.room_id}~{removal.started}"


def _status(removal: Removal) -> dict[str, Any]:
    phase = removal.phase
    return {"status": "complete" if phase == FINISHED else "shutting_down" if phase == "leaving" else "purging"}
