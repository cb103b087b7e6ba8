"""PUT /send_leave. Server-Server API, "Leaving Rooms (Rejecting Invites)"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class LeavingV2Endpoints:
    """Operations of `leaving-v2.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("PUT", "/_matrix/federation/v2/send_leave/{roomId}/{eventId}", self.send_leave, EVENT_LIMIT)]

    async def send_leave(self, request: PeerRequest) -> Any:
        """The signed leave."""
        params = request.params
        await self._rooms.leave(request.origin, params["roomId"], params["eventId"], request.object())
        return {}
