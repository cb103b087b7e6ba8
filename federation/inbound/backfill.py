"""History. Server-Server API, "Backfilling and retrieving missing events"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest, body_number, body_strings
from federation.inbound.ports import ReadsRooms
from federation.rules.errors import MatrixError

MAX_STARTS = 20
MAX_LIMIT = 100
MAX_MISSING = 20
DEFAULT_MISSING = 10
MAX_DEPTH = 2**63 - 1


class BackfillEndpoints:
    """Operations of `backfill.yaml`."""

    def __init__(self, rooms: ReadsRooms) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("GET", "/_matrix/federation/v1/backfill/{roomId}", self.backfill),
            Operation("POST", "/_matrix/federation/v1/get_missing_events/{roomId}", self.get_missing_events),
        ]

    async def backfill(self, request: PeerRequest) -> Any:
        """Events before some events, these included."""
        starts = request.query_list("v")[:MAX_STARTS]
        if not starts:
            raise MatrixError(400, "M_MISSING_PARAM", "Query parameter 'v' is missing")
        limit = request.number("limit", None, 0, MAX_LIMIT)
        return self._rooms.backfill(request.origin, request.params["roomId"], starts, limit)

    async def get_missing_events(self, request: PeerRequest) -> Any:
        """Events between the earliest and the latest that the asking server has."""
        content = request.object()
        return self._rooms.missing_events(
            request.origin,
            request.params["roomId"],
            body_strings(content, "earliest_events", MAX_STARTS),
            body_strings(content, "latest_events", MAX_STARTS),
            body_number(content, "limit", DEFAULT_MISSING, 0, MAX_MISSING),
            body_number(content, "min_depth", 0, 0, MAX_DEPTH),
        )
