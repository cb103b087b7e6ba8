"""GET /make_leave and the old PUT /send_leave. Server-Server API, "Leaving Rooms (Rejecting Invites)"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class LeavingV1Endpoints:
    """Operations of `leaving-v1.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", "/_matrix/federation/v1/make_leave/{roomId}/{userId}", self.make_leave),
            Operation("PUT", "/_matrix/federation/v1/send_leave/{roomId}/{eventId}", self.send_leave, EVENT_LIMIT),
        ]

    async def make_leave(self, request: PeerRequest) -> Any:
        """A template of the leave event."""
        params = request.params
        return self._rooms.template(request.origin, params["roomId"], params["userId"], "leave", None)

    async def send_leave(self, request: PeerRequest) -> Any:
        """The signed leave; answered inside the list that version 1 has around its answers."""
        params = request.params
        await self._rooms.leave(request.origin, params["roomId"], params["eventId"], request.object())
        return [200, {}]
