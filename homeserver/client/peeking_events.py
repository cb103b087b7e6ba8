"""GET /events with a room id: listening to a world readable room from outside (peeking_events.yaml)."""

from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime

from federation.rules.errors import MatrixError
from homeserver.client.open_polls import OpenPolls
from homeserver.rooms.read import Reading
from homeserver.rooms.watch import RoomWatch
from homeserver.sync import tokens
from homeserver.web.call import Call

MAX_EVENTS = 100
DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 300_000


class PeekingEvents:
    """Long poll over one room. Its route is that of ``old_sync``: the two share path and method."""

    def __init__(self, reading: Reading, watch: RoomWatch, polls: OpenPolls, clock: IReactorTime) -> None:
        self._reading = reading
        self._watch = watch
        self._polls = polls
        self._clock = clock

    async def peek(self, call: Call, room_id: str) -> dict[str, Any]:
        """The room's visible events after ``from``; waits for one. MatrixError 403 if the caller may not look in."""
        log = self._reading.log
        start = position_of(call.query("from"), log.epoch, log.position)
        timeout = call.query_int("timeout", DEFAULT_TIMEOUT_MS, 0, MAX_TIMEOUT_MS)
        deadline = self._clock.seconds() + timeout / 1000
        chunk, end = self._events(call, room_id, start)
        poll = self._polls.open(call)
        try:
            while not chunk and (remaining := deadline - self._clock.seconds()) > 0:
                if not await poll.wait(self._watch.wait(room_id, remaining)):
                    break
                chunk, end = self._events(call, room_id, end)
        finally:
            self._polls.close(call, poll)
        return events_body(log.epoch, start, end, chunk)

    def _events(self, call: Call, room_id: str, after: int) -> tuple[list[orjson.Fragment], int]:
        """Visible events after a position, and the position up to which that is all."""
        log = self._reading.log
        with log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, room_id)
            cut = self._reading.cut_of_position(reader, after)
            stop = None if reader.departure is None else reader.departure + 1
            page = self._reading.slice(reader, cut, stop, MAX_EVENTS, backwards=False)
            events = [orjson.Fragment(reader.render(record)) for record in page.records]
            end = log.position
            if page.end is not None and page.records:
                end = page.records[-1].position
        return events, end


def position_of(token: str | None, epoch: str, newest: int) -> int:
    """The position that a ``from`` names; without one the newest. MatrixError 400 M_INVALID_PARAM.

    A token from another time of this server tells nothing of what the client has: it starts from now.
    """
    if token is None:
        return newest
    parsed = tokens.parse(token)
    return parsed.position if parsed.epoch == epoch and parsed.position <= newest else newest


def events_body(epoch: str, start: int, end: int, chunk: list[orjson.Fragment]) -> dict[str, Any]:
    """The answer of both forms of ``/events``."""
    if start > end:
        raise MatrixError(400, "M_INVALID_PARAM", "from is later than now")
    return {"start": tokens.sync_token(epoch, start), "end": tokens.sync_token(epoch, end), "chunk": chunk}
