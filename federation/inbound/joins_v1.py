"""GET /make_join. Server-Server API, "Joining Rooms"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import LetsIn


class JoinsV1Endpoints:
    """Operations of `joins-v1.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}", self.make_join)]

    async def make_join(self, request: PeerRequest) -> Any:
        """A template of the join event."""
        params = request.params
        versions = request.query_list("ver") or ["1"]
        return self._rooms.template(request.origin, params["roomId"], params["userId"], "join", versions)
