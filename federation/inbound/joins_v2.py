"""PUT /send_join. Server-Server API, "Joining Rooms"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class JoinsV2Endpoints:
    """Operations of `joins-v2.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("PUT", "/_matrix/federation/v2/send_join/{roomId}/{eventId}", self.send_join, EVENT_LIMIT)]

    async def send_join(self, request: PeerRequest) -> Any:
        """The signed join; answered with the state before it."""
        params = request.params
        omit_members = request.query("omit_members") == "true"
        return await self._rooms.join(
            request.origin, params["roomId"], params["eventId"], request.object(), omit_members
        )
