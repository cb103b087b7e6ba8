"""GET /event_auth: the auth chain of an event. Server-Server API, "Authorization rules"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import ReadsRooms


class EventAuthEndpoints:
    """Operations of `event_auth.yaml`."""

    def __init__(self, rooms: ReadsRooms) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", "/_matrix/federation/v1/event_auth/{roomId}/{eventId}", self.event_auth)]

    async def event_auth(self, request: PeerRequest) -> Any:
        """The auth chain."""
        return await self._rooms.event_auth(request.origin, request.params["roomId"], request.params["eventId"])
