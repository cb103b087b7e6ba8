"""PUT /rooms/{roomId}/send/{eventType}/{txnId} (room_send.yaml)."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.send import Send
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route


class RoomSend:
    """Takes message events."""

    def __init__(self, send: Send, *, without_transaction: bool = False) -> None:
        """``without_transaction``: also take the removed POST form, which has no transaction id."""
        self._send = send
        self._without_transaction = without_transaction

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/send/{eventType}"
        routes = [Route("PUT", path + "/{txnId}", self.put_send, Auth.GUEST, "message")]
        if self._without_transaction:
            routes.append(Route("POST", path, self.put_send, Auth.GUEST, "message"))
        return routes

    async def put_send(self, call: Call) -> dict[str, Any]:
        """Append a message event; answers with its id once it is durable."""
        params = call.params
        type_ = params["eventType"]
        content = call.json_object()
        if type_ == "m.room.redaction":
            redacts = content.get("redacts")
            if not isinstance(redacts, str):
                raise MatrixError(400, "M_BAD_JSON", "A redaction names the event in redacts")
            reason = content.get("reason")
            event_id = await self._send.redact(
                call.requester,
                params["roomId"],
                redacts,
                reason if isinstance(reason, str) else None,
                params.get("txnId"),
            )
            return {"event_id": event_id}
        return {
            "event_id": await self._send.message(call.requester, params["roomId"], type_, content, params.get("txnId"))
        }
