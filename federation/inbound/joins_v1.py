"""GET /make_join and the old PUT /send_join. Server-Server API, "Joining Rooms"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class JoinsV1Endpoints:
    """Operations of `joins-v1.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}", self.make_join),
            Operation("PUT", "/_matrix/federation/v1/send_join/{roomId}/{eventId}", self.send_join, EVENT_LIMIT),
        ]

    async def make_join(self, request: PeerRequest) -> Any:
        """A template of the join event."""
        params = request.params
        versions = request.query_list("ver") or ["1"]
        return self._rooms.template(request.origin, params["roomId"], params["userId"], "join", versions)

    async def send_join(self, request: PeerRequest) -> Any:
        """The signed join; answered like version 2, inside the list that version 1 has around its answers."""
        params = request.params
        answer = await self._rooms.join(
            request.origin, params["roomId"], params["eventId"], request.object(), omit_members=False
        )
        return [200, answer]
