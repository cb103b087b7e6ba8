"""PUT /rooms/{roomId}/redact/{eventId}/{txnId} (redaction.yaml)."""

from typing import Any

import msgspec

from homeserver.rooms.send import Send
from homeserver.web.call import Call
from homeserver.web.routes import Route


class RedactRequest(msgspec.Struct):
    """Body of redact."""

    reason: str | None = None


class Redaction:
    """Takes content back."""

    def __init__(self, send: Send, *, without_transaction: bool = False) -> None:
        """``without_transaction``: also take the removed POST form, which has no transaction id."""
        self._send = send
        self._without_transaction = without_transaction

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}"
        routes = [Route("PUT", path + "/{txnId}", self.put_redact, limit="message")]
        if self._without_transaction:
            routes.append(Route("POST", path, self.put_redact, limit="message"))
        return routes

    async def put_redact(self, call: Call) -> dict[str, Any]:
        """Redact an event."""
        params = call.params
        reason = call.json(RedactRequest).reason
        event_id = await self._send.redact(
            call.requester, params["roomId"], params["eventId"], reason, params.get("txnId")
        )
        return {"event_id": event_id}
