"""How an event looks to a client: the stored bytes with an ``unsigned`` section made for the reader.

Specification: Client-Server API, "Room event format" (``ClientEvent`` and ``UnsignedData``). Nothing is decoded:
the parts of ``unsigned`` are spliced from stored bytes as well.
"""

from typing import Any

import orjson

from homeserver.rooms.erasure import is_hidden, without_content
from homeserver.rooms.visibility import Sight
from storage.log import events as event_log
from storage.log.state_map import StateMap
from storage.log.view import View


class Renderer:
    """Turns stored events into client events for one reader; valid as long as its ``view``.

    ``device_id`` is the reader's device: only the device that sent an event is told its ``transaction_id``.
    ``with_room_id`` is for endpoints that do not group events by room.
    """

    __slots__ = ("_device_id", "_now_ms", "_user_id", "_view", "_with_room_id")

    def __init__(
        self, view: View, now_ms: int, user_id: str, device_id: str | None, with_room_id: bool = False
    ) -> None:
        self._view = view
        self._now_ms = now_ms
        self._user_id = user_id
        self._device_id = device_id
        self._with_room_id = with_room_id

    def timeline_event(self, record: Any, sight: Sight) -> bytes:
        """An event of a room's log, for a reader who may see it."""
        membership = sight.membership_at(record.type, record.state_key, record.state_before, record.state_after)
        event = self.event(record, membership, sight)
        if membership != "join" and is_hidden(self._view, record, membership):
            return without_content(event, record)
        return event

    def event(self, record: Any, membership: str | None = None, sight: Sight | None = None) -> bytes:
        """An event as client JSON bytes.

        ``membership`` is the reader's at the event (None leaves it out). Without ``sight`` the previous content of a
        state event is left out, as it would be for a reader who may not see the previous event.
        """
        parts = [b'{"age":%d' % (self._now_ms - record.origin_server_ts)]
        if membership is not None:
            parts.append(b'"membership":' + orjson.dumps(membership))
        if record.txn is not None and record.sender == self._user_id and record.txn[0] == self._device_id:
            parts.append(b'"transaction_id":' + orjson.dumps(record.txn[1]))
        if record.state_key is not None and record.state_before:
            self._add_previous(parts, record, sight)
        if record.redacted_by is not None:
            self._add_redaction(parts, record.redacted_by)
        return record.client_json(self._with_room_id, b",".join(parts) + b"}")

    def _add_previous(self, parts: list[bytes], record: Any, sight: Sight | None) -> None:
        """``replaces_state`` always, ``prev_content`` when the reader may see the event that was replaced."""
        previous_id = StateMap(self._view, record.room_nid).get(record.state_before, record.type, record.state_key)
        if previous_id is None or previous_id == record.event_id:
            return
        parts.append(b'"replaces_state":' + orjson.dumps(previous_id))
        previous = None if sight is None else event_log.event_by_id(self._view, previous_id)
        if previous is None or sight is None or previous.seq is None:
            return
        before, after = previous.state_before, previous.state_after
        if sight.sees(previous.seq, previous.type, previous.state_key, before, after):
            parts.append(b'"prev_content":' + bytes(previous.content_json))
            parts.append(b'"prev_sender":' + orjson.dumps(previous.sender))

    def _add_redaction(self, parts: list[bytes], event_id: str) -> None:
        redaction = event_log.event_by_id(self._view, event_id)
        if redaction is not None:
            unsigned = b'{"age":%d}' % (self._now_ms - redaction.origin_server_ts)
            parts.append(b'"redacted_because":' + redaction.client_json(True, unsigned))
            # Not specified, but looked for by clients that knew it from before it was left out.
            parts.append(b'"redacted_by":' + orjson.dumps(event_id))
