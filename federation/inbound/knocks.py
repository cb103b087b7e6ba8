"""Knocking. Server-Server API, "Knocking upon a room"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class KnockEndpoints:
    """Operations of `knocks.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", "/_matrix/federation/v1/make_knock/{roomId}/{userId}", self.make_knock),
            Operation("PUT", "/_matrix/federation/v1/send_knock/{roomId}/{eventId}", self.send_knock, EVENT_LIMIT),
        ]

    async def make_knock(self, request: PeerRequest) -> Any:
        """A template of the knock event."""
        params = request.params
        versions = request.query_list("ver") or ["1"]
        return self._rooms.template(request.origin, params["roomId"], params["userId"], "knock", versions)

    async def send_knock(self, request: PeerRequest) -> Any:
        """The signed knock; answered with the room's stripped state."""
        params = request.params
        return await self._rooms.knock(request.origin, params["roomId"], params["eventId"], request.object())
