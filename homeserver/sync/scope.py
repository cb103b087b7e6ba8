"""One reading of the log for one sync: who reads, what they want, and the snapshot they read from."""

from typing import Any, NamedTuple

import orjson

from homeserver.rooms.rendering import Renderer
from homeserver.sync.filters import SyncFilter, pick_fields
from homeserver.sync.tokens import Since, sync_token, timeline_token
from storage.log.state_map import StateMap
from storage.log.view import Snapshot


class SyncRequest(NamedTuple):
    """What a client asks for. ``since`` None is a sync from the beginning; times are milliseconds."""

    user_id: str
    device_id: str | None
    since: Since | None
    filter: SyncFilter
    full_state: bool = False
    use_state_after: bool = False
    now_ms: int = 0


class Scope:
    """A snapshot seen by one request, up to position ``upto``. Lives within one turn of the reactor."""

    __slots__ = ("epoch", "ignored", "now_ms", "renderer", "request", "since", "upto", "user_id", "view")

    def __init__(self, request: SyncRequest, view: Snapshot, epoch: str, upto: int, ignored: frozenset[str]) -> None:
        self.request = request
        self.view = view
        self.epoch = epoch
        self.upto = upto
        self.ignored = ignored
        self.user_id = request.user_id
        self.now_ms = request.now_ms
        self.since = None if request.since is None else request.since.position
        self.renderer = Renderer(view, request.now_ms, request.user_id, request.device_id)

    def states(self, room_nid: int) -> StateMap:
        """The states of a room."""
        return StateMap(self.view, room_nid)

    @property
    def next_batch(self) -> str:
        """The token that the answer ends with."""
        return sync_token(self.epoch, self.upto)

    def cut(self, sequence: int) -> str:
        """The ``prev_batch`` before the event numbered ``sequence``."""
        return timeline_token(self.epoch, self.upto, sequence)

    def shape(self, event: bytes, record: Any) -> bytes:
        """The event in the form that the filter asks for (``event_format`` and ``event_fields``)."""
        wanted = self.request.filter
        if wanted.federation_format:
            # Newer rooms leave the event id out between servers, but a client cannot compute it.
            event = orjson.dumps(orjson.loads(record.pdu) | {"event_id": record.event_id})
        if wanted.event_fields is not None:
            event = orjson.dumps(pick_fields(orjson.loads(event), wanted.event_fields))
        return event


def has_url(record: Any) -> bool:
    """Whether an event's content has a ``url`` that is a string (filters ask for it)."""
    content = orjson.loads(record.content_json)
    return isinstance(content, dict) and isinstance(content.get("url"), str)
