"""POST /rooms/{roomId}/invite (inviting.yaml, third_party_membership.yaml)."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.rooms.membership import Membership
from homeserver.web.call import Call
from homeserver.web.routes import Route


class InviteRequest(msgspec.Struct):
    """Body of an invitation by user id; the keys of one by e-mail or phone tell the two apart."""

    user_id: str | None = None
    reason: str | None = None
    id_server: str | None = None
    medium: str | None = None
    address: str | None = None


class Inviting:
    """Invites users."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("POST", "/_matrix/client/v3/rooms/{roomId}/invite", self.post_invite, limit="invites.per_issuer")]

    async def post_invite(self, call: Call) -> dict[str, Any]:
        """Invite a user by id. Invitations by e-mail or phone need an identity server, which is not configured."""
        request = call.json(InviteRequest)
        if request.user_id is None:
            if request.medium is not None and request.address is not None:
                raise MatrixError(
                    403, "M_THREEPID_DENIED", "Invitations by e-mail or phone are not available on this server"
                )
            raise MatrixError(400, "M_MISSING_PARAM", "user_id is missing")
        await self._membership.invite(call.requester, call.params["roomId"], request.user_id, request.reason)
        return {}
