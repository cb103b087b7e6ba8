"""What other servers tell about their users, aliases and rooms, for our users who ask: nothing of it is kept."""

from typing import Any

from federation.outbound.calls import Calls, refusal
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_id, is_valid_server_name, server_name_of
from federation.wire.errors import PeerUnreachable, RequestRefused

MAX_PROFILE_FIELDS = 100
MAX_ROOMS = 500


class RemoteReads:
    """Profiles and room directories of other servers."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def get(self, user_id: str) -> dict[str, Any]:
        """The profile of a user of another server. MatrixError 404 when there is none, 502 when it cannot be had."""
        try:
            profile = await self._calls.profile(server_name_of(user_id), user_id)
        except RequestRefused as refused:
            if refused.status in (403, 404):
                raise MatrixError(refused.status, refused.errcode, "The user's server shows no such profile") from refused
            raise refusal(refused, "The user's server could not tell") from refused
        except PeerUnreachable as problem:
            raise refusal(problem, "The user's server could not be asked") from problem
        shown: dict[str, Any] = {}
        for key, value in list(profile.items())[:MAX_PROFILE_FIELDS]:
            if key in ("displayname", "avatar_url") and not isinstance(value, str):
                continue  # clients count on text
            shown[key] = value
        return shown

    async def public_rooms(self, server: str, wish: dict[str, Any]) -> dict[str, Any]:
        """A page of the room directory of another server.

        ``wish`` is the body of POST /publicRooms. MatrixError 400 for what is no server name, 502 without an answer.
        """
        if not is_valid_server_name(server):
            raise MatrixError(400, "M_INVALID_PARAM", "server is not a server name")
        try:
            page = await self._calls.public_rooms(server, wish)
        except (RequestRefused, PeerUnreachable) as problem:
            raise refusal(problem, "The room list of that server could not be had") from problem
        chunk = page.get("chunk")
        rooms = chunk if isinstance(chunk, list) else []
        kept = [room for room in rooms if isinstance(room, dict) and is_valid_room_id(room.get("room_id"))]
        shown: dict[str, Any] = {"chunk": kept[:MAX_ROOMS]}
        for key, type_ in (("next_batch", str), ("prev_batch", str), ("total_room_count_estimate", int)):
            if isinstance(page.get(key), type_):
                shown[key] = page[key]
        return shown
