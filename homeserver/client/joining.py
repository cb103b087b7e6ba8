"""POST /rooms/{roomId}/join and /join/{roomIdOrAlias} (joining.yaml)."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route

OWN_KEYS = frozenset(
    ("membership", "displayname", "avatar_url", "join_authorised_via_users_server", "kind", "third_party_invite")
    + ("third_party_signed", "reason")
)
"""Keys of a member event that the server fills in, whatever the client sends."""

MAX_SERVERS = 10
"""Servers that one request may name."""


class JoinRequest(msgspec.Struct):
    """The body of both operations."""

    reason: str | None = None
    third_party_signed: dict[str, Any] | None = None


class Joining:
    """Lets clients into rooms."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [
            Route("POST", "/_matrix/client/v3/rooms/{roomId}/join", self.post_join_by_id, Auth.GUEST, "joins.local"),
            Route("POST", "/_matrix/client/v3/join/{roomIdOrAlias}", self.post_join, Auth.GUEST, "joins.local"),
        ]

    async def post_join_by_id(self, call: Call) -> dict[str, Any]:
        """Join a room that this server knows by its id."""
        return await self._join(call, call.params["roomId"], [])

    async def post_join(self, call: Call) -> dict[str, Any]:
        """Join a room by id or alias."""
        room_id, servers = await self._membership.find_room(call.params["roomIdOrAlias"], servers_named(call))
        return await self._join(call, room_id, servers)

    async def _join(self, call: Call, room_id: str, via: list[str]) -> dict[str, Any]:
        request = call.json(JoinRequest)
        extra = {} if call.body == b"" else {k: v for k, v in call.json_object().items() if k not in OWN_KEYS}
        signed = request.third_party_signed
        if signed is not None and not isinstance(signed.get("token"), str):
            raise MatrixError(400, "M_BAD_JSON", "third_party_signed carries mxid, sender, token and signatures")
        await self._membership.join(call.requester, room_id, extra, request.reason, signed, via)
        return {"room_id": room_id}


def servers_named(call: Call) -> list[str]:
    """The servers that the caller names as taking part in a room: ``via``, or ``server_name`` as it was called before."""
    return (call.query_list("via") or call.query_list("server_name"))[:MAX_SERVERS]
