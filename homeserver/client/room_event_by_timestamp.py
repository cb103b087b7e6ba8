"""GET /rooms/{roomId}/timestamp_to_event (room_event_by_timestamp.yaml)."""

from typing import Any, Protocol

from federation.rules.errors import MatrixError
from homeserver.rooms.read import Reading
from homeserver.web.call import Call
from homeserver.web.routes import Route
from storage.log.events import event_at

MAX_TIMESTAMP = 2**53 - 1


class ReachesBack(Protocol):
    """Fetches history of other servers; see `homeserver.rooms.moments.Moments`."""

    async def reach(self, room_id: str, ts: int, *, forward: bool, nearest: int | None) -> bool:
        """Whether there is more of the room's history now than before."""


class RoomEventByTimestamp:
    """Finds the event closest to a time. ``moments`` is there when the server federates."""

    def __init__(self, reading: Reading, moments: ReachesBack | None = None) -> None:
        self._reading = reading
        self._moments = moments

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event"
        # Where clients look that do not count on v1.6.
        old = "/_matrix/client/unstable/org.matrix.msc3030/rooms/{roomId}/timestamp_to_event"
        return [Route("GET", path, self.get_event_by_timestamp, aliases=(old,))]

    async def get_event_by_timestamp(self, call: Call) -> dict[str, Any]:
        """The visible event nearest to ``ts`` milliseconds, at or after it (``dir=f``) or at or before it (``b``)."""
        if call.query("ts") is None:
            raise MatrixError(400, "M_MISSING_PARAM", "ts is missing")
        ts = call.query_int("ts", 0, 0, MAX_TIMESTAMP)
        direction = call.query("dir", "f")
        if direction not in ("f", "b"):
            raise MatrixError(400, "M_INVALID_PARAM", "dir is f or b")
        forward = direction == "f"
        found, at_the_edge = self._find(call, ts, forward)
        if at_the_edge and self._moments is not None:
            nearest = None if found is None else found[1]
            if await self._moments.reach(call.params["roomId"], ts, forward=forward, nearest=nearest):
                found, _ = self._find(call, ts, forward)
        if found is None:
            raise MatrixError(404, "M_NOT_FOUND", "There is no event on that side of the time given")
        return {"event_id": found[0], "origin_server_ts": found[1]}

    def _find(self, call: Call, ts: int, forward: bool) -> tuple[tuple[str, int] | None, bool]:
        """Id and time of the closest event that is here, and whether history that is not here may have a closer one."""
        with self._reading.log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            record = self._reading.nearest(reader, ts, forward=forward)
            oldest = event_at(snapshot, reader.meta.nid, reader.meta.first_seq)
            edge = (
                record is None
                or record.event_id in reader.meta.backward_extremities
                or (oldest is not None and ts < oldest.origin_server_ts)
            )
            found = None if record is None else (record.event_id, record.origin_server_ts)
            return found, edge and reader.joined
