"""Account data (Client-Server API, "Client Config")."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.accounts.account_data import MAX_CONTENT_BYTES, AccountData
from homeserver.web.call import Answer, Call
from homeserver.web.router import Route


class AccountDataEndpoints:
    """Routes of `account-data.yaml`."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    def routes(self) -> list[Route]:
        """The routes."""
        account = "/_matrix/client/v3/user/{userId}/account_data/{type}"
        room = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}"
        limit = 2 * MAX_CONTENT_BYTES
        return [
            Route("GET", account, self.get),
            Route("PUT", account, self.put, body_limit=limit),
            Route("GET", room, self.get),
            Route("PUT", room, self.put, body_limit=limit),
        ]

    def get(self, call: Call) -> Answer:
        """The content of one type."""
        user_id, room_id = own_room(call)
        return Answer(200, self._account_data.get(user_id, room_id, call.params["type"]))

    async def put(self, call: Call) -> dict[str, Any]:
        """Replace the content of one type."""
        user_id, room_id = own_room(call)
        await self._account_data.put(user_id, room_id, call.params["type"], call.json_object())
        return {}


def own_room(call: Call) -> tuple[str, str]:
    """User and room (or ``""``) of a path below `/user/{userId}`; only one's own: 403 M_FORBIDDEN."""
    user_id = call.params["userId"]
    if user_id != call.requester.user_id:
        raise MatrixError(403, "M_FORBIDDEN", "Only one's own account data can be read or changed")
    room_id = call.params.get("roomId", "")
    if "roomId" in call.params and (not room_id.startswith("!") or len(room_id.encode()) > 255):
        raise MatrixError(400, "M_INVALID_PARAM", "That is not a room ID")
    return user_id, room_id
