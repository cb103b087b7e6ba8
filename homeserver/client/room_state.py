"""PUT /rooms/{roomId}/state/{eventType}/{stateKey} (room_state.yaml)."""

from typing import Any

from homeserver.rooms.membership import Membership
from homeserver.rooms.send import Send
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route


class RoomState:
    """Takes state events."""

    def __init__(self, send: Send, membership: Membership) -> None:
        self._send = send
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module; an empty state key may come with or without the last slash."""
        path = "/_matrix/client/v3/rooms/{roomId}/state/{eventType}"
        return [
            Route("PUT", path + "/{stateKey}", self.put_state, Auth.GUEST, "message"),
            Route("PUT", path, self.put_state, Auth.GUEST, "message", aliases=(path + "/",)),
        ]

    async def put_state(self, call: Call) -> dict[str, Any]:
        """Set a piece of the room's state."""
        room_id, type_ = call.params["roomId"], call.params["eventType"]
        state_key = call.params.get("stateKey", "")
        content = call.json_object()
        if type_ == "m.room.member":
            event_id = await self._membership.set_member(call.requester, room_id, state_key, content)
        else:
            event_id = await self._send.state(call.requester, room_id, type_, state_key, content)
        return {"event_id": event_id}
