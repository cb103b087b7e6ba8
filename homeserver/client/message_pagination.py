"""GET /rooms/{roomId}/messages (message_pagination.yaml)."""

from typing import Any, Protocol

import orjson

from federation.rules.errors import MatrixError
from homeserver.rooms.read import Reader, Reading, Slice, Wants, sender_members
from homeserver.sync import tokens
from homeserver.sync.filters import EventFilter, parse_event_filter
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route
from storage.log.events import EventRecord

MAX_LIMIT = 1000
MAX_FETCHES = 3
"""How often one page asks other servers for older history; what comes may all be hidden from the reader."""


class OlderHistory(Protocol):
    """History from before this server came into a room; see :class:`homeserver.rooms.history.History`."""

    def has_more(self, room_id: str) -> bool:
        """Whether there is history that other servers may have."""

    async def fetch(self, room_id: str, limit: int = 100) -> int:
        """Fetch older events; how many there were."""


class MessagePagination:
    """Pages through a room's history, past its stored beginning with the help of ``history`` if given."""

    def __init__(self, reading: Reading, history: OlderHistory | None = None) -> None:
        self._reading = reading
        self._history = history

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("GET", "/_matrix/client/v3/rooms/{roomId}/messages", self.get_messages, Auth.GUEST)]

    async def get_messages(self, call: Call) -> dict[str, Any]:
        """A page of visible events, with the state of lazily loaded senders if the filter asks for it."""
        direction = call.query("dir", "b")
        if direction not in ("b", "f"):
            raise MatrixError(400, "M_INVALID_PARAM", "dir is b or f")
        backwards = direction == "b"
        limit = call.query_int("limit", 10, 0, MAX_LIMIT)
        wanted = event_filter(call.query("filter"))
        if wanted is not None and wanted.limit is not None:
            limit = min(limit, wanted.limit)
        for _ in range(MAX_FETCHES):
            page, body = self._page(call, limit, backwards, wanted)
            if not backwards or page.end is not None or len(page.records) >= limit:
                return body
            if not await self._older(call.params["roomId"]):
                return body
        return self._page(call, limit, backwards, wanted)[1]

    async def _older(self, room_id: str) -> bool:
        """Whether there is more of the room's history now than before."""
        history = self._history
        return history is not None and history.has_more(room_id) and await history.fetch(room_id) > 0

    def _page(
        self, call: Call, limit: int, backwards: bool, wanted: EventFilter | None
    ) -> tuple[Slice, dict[str, Any]]:
        """What is stored of the page, and the answer that it makes."""
        with self._reading.log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            start = self._start(reader, call.query("from"), backwards)
            stop = self._cut(reader, call.query("to"))
            page = self._reading.slice(reader, start, stop, limit, backwards=backwards, wants=wants(wanted, reader))
            return page, self._body(reader, start, page, wanted, backwards)

    def _body(
        self, reader: Reader, start: int, page: Slice, wanted: EventFilter | None, backwards: bool
    ) -> dict[str, Any]:
        log = self._reading.log
        body: dict[str, Any] = {
            "start": tokens.timeline_token(log.epoch, log.position, start),
            "chunk": [orjson.Fragment(reader.render(record)) for record in page.records],
        }
        end = page.end
        if end is None and page.records:
            # What ends here is known only by asking once more: clients of long standing look for `end` beside events.
            seq = page.records[-1].seq or 0
            end = seq if backwards else seq + 1
        if end is not None:
            body["end"] = tokens.timeline_token(log.epoch, log.position, end)
        if wanted is not None and wanted.lazy_load_members and page.records:
            newest = max(page.records, key=lambda record: record.seq or 0)
            members = sender_members(reader, page.records, newest.state_after)
            body["state"] = [orjson.Fragment(reader.render(member)) for member in members]
        return body

    def _start(self, reader: Reader, text: str | None, backwards: bool) -> int:
        """Where the page begins: at the token; without one at the newest event (back) or the oldest (forward)."""
        cut = self._cut(reader, text)
        if cut is None:
            cut = reader.meta.last_seq + 1 if backwards else reader.meta.first_seq
        if backwards and reader.departure is not None:
            cut = min(cut, reader.departure + 1)
        return cut

    def _cut(self, reader: Reader, text: str | None) -> int | None:
        if text is None:
            return None
        token = tokens.parse(text)
        if isinstance(token, tokens.TimelineToken):
            return token.sequence
        return self._reading.cut_of_position(reader, token.position)


def event_filter(text: str | None) -> EventFilter | None:
    """The ``filter`` parameter: a RoomEventFilter as JSON. MatrixError 400 for anything else."""
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MatrixError(400, "M_NOT_JSON", "filter is not JSON") from None
    return parse_event_filter(value)


def wants(wanted: EventFilter | None, reader: Reader) -> Wants | None:
    """A filter as a function of records; None for one that lets everything through."""
    if wanted is None:
        return None
    if not wanted.wants_room(reader.meta.room_id):
        return lambda record: False

    def test(record: EventRecord) -> bool:
        return wanted.wants(record.type, record.sender, lambda: has_url(record))

    return test


def has_url(record: EventRecord) -> bool:
    """Whether the event's content has a ``url`` that is a string (RoomEventFilter, contains_url)."""
    return isinstance(orjson.loads(record.content_json).get("url"), str)
