"""Read receipts (Client-Server API, module "Receipts")."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.client.typing import JoinedUsers, require_joined
from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.receipts import FULLY_READ, MAX_THREAD_BYTES, TYPES, Receipts
from homeserver.web.call import Call
from homeserver.web.router import Route


class ReceiptRequest(msgspec.Struct):
    """`POST /rooms/{roomId}/receipt/…`; an absent thread is an unthreaded receipt."""

    thread_id: Any = msgspec.UNSET


class ReadReceipts:
    """The endpoint of `receipts.yaml`."""

    def __init__(self, receipts: Receipts, memberships: JoinedUsers, presence: Presence) -> None:
        self._receipts = receipts
        self._memberships = memberships
        self._presence = presence

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}"
        return [Route("POST", path, self.post_receipt, body_limit=16 * 1024)]

    async def post_receipt(self, call: Call) -> dict[str, Any]:
        """The user has read up to an event."""
        room_id, type_ = call.params["roomId"], call.params["receiptType"]
        user_id = call.requester.user_id
        if type_ not in TYPES:
            raise MatrixError(400, "M_INVALID_PARAM", f"Unknown receipt type; known are {', '.join(TYPES)}")
        thread = _thread(call.json(ReceiptRequest).thread_id, type_)
        require_joined(self._memberships, user_id, room_id)
        self._presence.active(user_id)
        await self._receipts.read_up_to(user_id, room_id, {type_: call.params["eventId"]}, thread)
        return {}


def _thread(given: Any, type_: str) -> str:
    """The receipt's thread, ``""`` for none. Raises MatrixError 400 ``M_INVALID_PARAM``."""
    if given is msgspec.UNSET:
        return ""
    if not isinstance(given, str) or not given or len(given.encode()) > MAX_THREAD_BYTES:
        raise MatrixError(400, "M_INVALID_PARAM", "thread_id has to be a non-empty string")
    if type_ == FULLY_READ:
        raise MatrixError(400, "M_INVALID_PARAM", "m.fully_read has no thread")
    return given
