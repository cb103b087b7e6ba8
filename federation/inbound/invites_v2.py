"""PUT /invite in version 2. Server-Server API, "Inviting to a room"."""

from typing import Any

from federation.inbound.operation import INVITE_LIMIT, Operation, PeerRequest
from federation.inbound.ports import TakesInvites
from federation.rules.errors import MatrixError


class InvitesV2Endpoints:
    """Operations of `invites-v2.yaml`."""

    def __init__(self, invites: TakesInvites) -> None:
        self._invites = invites

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("PUT", "/_matrix/federation/v2/invite/{roomId}/{eventId}", self.invite, INVITE_LIMIT)]

    async def invite(self, request: PeerRequest) -> Any:
        """The invite with our signature."""
        content, params = request.object(), request.params
        version, state = content.get("room_version"), content.get("invite_room_state", [])
        if not isinstance(version, str) or not isinstance(state, list):
            raise MatrixError(400, "M_BAD_JSON", "room_version is a string and invite_room_state a list")
        return await self._invites.invite(
            request.origin, params["roomId"], params["eventId"], content.get("event"), version, state
        )
