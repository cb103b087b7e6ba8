"""GET /mutual_rooms (mutual_rooms.yaml)."""

import base64
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id
from homeserver.rooms.memberships import Memberships
from homeserver.web.call import Call
from homeserver.web.routes import Route

BATCH = 100


class MutualRooms:
    """Tells a user which rooms they share with another one."""

    def __init__(self, memberships: Memberships, batch: int = BATCH) -> None:
        self._memberships = memberships
        self._batch = batch

    def routes(self) -> list[Route]:
        """The operations of this module."""
        unstable = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
        return [Route("GET", "/_matrix/client/v1/mutual_rooms", self.get_mutual_rooms, aliases=(unstable,))]

    def get_mutual_rooms(self, call: Call) -> dict[str, Any]:
        """Ids of rooms to which both are joined, in the order of the ids, some at a time."""
        other, own = call.query("user_id"), call.requester.user_id
        if other is None:
            raise MatrixError(400, "M_MISSING_PARAM", "user_id is missing")
        if not is_valid_user_id(other) or other == own:
            raise MatrixError(400, "M_INVALID_PARAM", "user_id has to be the id of another user")
        after = _parse_token(call.query("from"))
        memberships = self._memberships
        shared = sorted(room for room in memberships.joined_rooms(own) if other in memberships.joined_users(room))
        rest = [room for room in shared if room > after]
        answer: dict[str, Any] = {"joined": rest[: self._batch], "count": len(shared)}
        if len(rest) > self._batch:
            answer["next_batch"] = base64.urlsafe_b64encode(rest[self._batch - 1].encode()).decode()
        return answer


def _parse_token(token: str | None) -> str:
    """The room id after which to go on; empty for the beginning. MatrixError 400 M_INVALID_PARAM."""
    if token is None:
        return ""
    try:
        room_id = base64.b64decode(token.encode("ascii"), b"-_", validate=True).decode()
    except ValueError:
        room_id = ""
    if not room_id.startswith("!"):
        raise MatrixError(400, "M_INVALID_PARAM", "from is not a token of this server")
    return room_id
