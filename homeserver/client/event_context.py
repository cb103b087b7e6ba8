"""GET /rooms/{roomId}/context/{eventId} (event_context.yaml)."""

from typing import Any

import orjson

from homeserver.client.message_pagination import event_filter, wants
from homeserver.rooms.read import Reading, sender_members
from homeserver.sync import tokens
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route

MAX_LIMIT = 100


class EventContext:
    """Shows what happened around an event."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("GET", "/_matrix/client/v3/rooms/{roomId}/context/{eventId}", self.get_context, Auth.GUEST)]

    def get_context(self, call: Call) -> dict[str, Any]:
        """The event, up to ``limit`` events around it, and the state at the last of them."""
        limit = call.query_int("limit", 10, 0, MAX_LIMIT)
        wanted = event_filter(call.query("filter"))
        log = self._reading.log
        with log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            record = self._reading.event(reader, call.params["eventId"])
            assert record.seq is not None
            test = wants(wanted, reader)
            after_limit = limit // 2
            before = self._reading.slice(
                reader, record.seq, None, limit - after_limit, backwards=True, wants=test
            )
            after = self._reading.slice(reader, record.seq + 1, None, after_limit, backwards=False, wants=test)
            last = after.records[-1] if after.records else record
            root = last.state_after
            if wanted is not None and wanted.lazy_load_members:
                shown = [*before.records, record, *after.records]
                state = [event for event in reader.state_events(root) if event.type != "m.room.member"]
                state += sender_members(reader, shown, root)
            else:
                state = list(reader.state_events(root))
            start = before.end if before.end is not None else _first(before.records, record.seq)
            end = after.end if after.end is not None else last.seq
            assert end is not None
            if after.end is None:
                end += 1

            def shown_as(events: Any) -> list[orjson.Fragment]:
                return [orjson.Fragment(reader.render(event)) for event in events]

            return {
                "event": orjson.Fragment(reader.render(record)),
                "events_before": shown_as(before.records),
                "events_after": shown_as(after.records),
                "state": shown_as(state),
                "start": tokens.timeline_token(log.epoch, log.position, start),
                "end": tokens.timeline_token(log.epoch, log.position, end),
            }


def _first(records: list[Any], seq: int) -> int:
    return records[-1].seq if records else seq
