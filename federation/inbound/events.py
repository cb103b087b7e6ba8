"""Events, states and times of rooms. Server-Server API, "Retrieving events"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import ReadsRooms
from federation.rules.errors import MatrixError

V1 = "/_matrix/federation/v1"
MAX_TIMESTAMP = 2**53


class EventEndpoints:
    """Operations of `events.yaml`."""

    def __init__(self, rooms: ReadsRooms) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", V1 + "/event/{eventId}", self.event),
            Operation("GET", V1 + "/state/{roomId}", self.state),
            Operation("GET", V1 + "/state_ids/{roomId}", self.state_ids),
            Operation("GET", V1 + "/timestamp_to_event/{roomId}", self.timestamp_to_event),
        ]

    async def event(self, request: PeerRequest) -> Any:
        """One event."""
        return self._rooms.event(request.origin, request.params["eventId"])

    async def state(self, request: PeerRequest) -> Any:
        """The state before an event."""
        return await self._rooms.state(request.origin, request.params["roomId"], request.required("event_id"))

    async def state_ids(self, request: PeerRequest) -> Any:
        """The state before an event, as ids."""
        return await self._rooms.state_ids(request.origin, request.params["roomId"], request.required("event_id"))

    async def timestamp_to_event(self, request: PeerRequest) -> Any:
        """The event closest to a time."""
        ts = request.number("ts", None, -MAX_TIMESTAMP, MAX_TIMESTAMP)
        direction = request.required("dir")
        if direction not in ("b", "f"):
            raise MatrixError(400, "M_INVALID_PARAM", "dir is b or f")
        return self._rooms.nearest(request.origin, request.params["roomId"], ts, direction == "f")
