"""PUT /invite in version 1. Server-Server API, "Inviting to a room"."""

from typing import Any

from federation.inbound.operation import INVITE_LIMIT, Operation, PeerRequest
from federation.inbound.ports import TakesInvites


class InvitesV1Endpoints:
    """Operations of `invites-v1.yaml`: the event itself is the body, room versions 1 and 2 alone."""

    def __init__(self, invites: TakesInvites) -> None:
        self._invites = invites

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("PUT", "/_matrix/federation/v1/invite/{roomId}/{eventId}", self.invite, INVITE_LIMIT)]

    async def invite(self, request: PeerRequest) -> Any:
        """The invite with our signature, in a list behind the number 200."""
        pdu, params = request.object(), request.params
        unsigned = pdu.get("unsigned")
        state = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        answer = await self._invites.invite(
            request.origin, params["roomId"], params["eventId"], pdu, "1", state if isinstance(state, list) else []
        )
        return [200, answer]
