"""GET /make_leave. Server-Server API, "Leaving Rooms (Rejecting Invites)"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import LetsIn


class LeavingV1Endpoints:
    """Operations of `leaving-v1.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", "/_matrix/federation/v1/make_leave/{roomId}/{userId}", self.make_leave)]

    async def make_leave(self, request: PeerRequest) -> Any:
        """A template of the leave event."""
        params = request.params
        return self._rooms.template(request.origin, params["roomId"], params["userId"], "leave", None)
