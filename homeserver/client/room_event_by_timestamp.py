"""GET /rooms/{roomId}/timestamp_to_event (room_event_by_timestamp.yaml)."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.read import Reading
from homeserver.web.call import Call
from homeserver.web.routes import Route

MAX_TIMESTAMP = 2**53 - 1


class RoomEventByTimestamp:
    """Finds the event closest to a time."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def routes(self) -> list[Route]:
        """The operations of this module."""
        path = "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event"
        return [Route("GET", path, self.get_event_by_timestamp)]

    def get_event_by_timestamp(self, call: Call) -> dict[str, Any]:
        """The visible event nearest to ``ts`` milliseconds, at or after it (``dir=f``) or at or before it (``b``)."""
        if call.query("ts") is None:
            raise MatrixError(400, "M_MISSING_PARAM", "ts is missing")
        ts = call.query_int("ts", 0, 0, MAX_TIMESTAMP)
        direction = call.query("dir", "f")
        if direction not in ("f", "b"):
            raise MatrixError(400, "M_INVALID_PARAM", "dir is f or b")
        with self._reading.log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            record = self._reading.nearest(reader, ts, forward=direction == "f")
            if record is None:
                raise MatrixError(404, "M_NOT_FOUND", "There is no event on that side of the time given")
            return {"event_id": record.event_id, "origin_server_ts": record.origin_server_ts}
