"""Frames that many connections share: built once for each message, typing notification or public receipt."""

from collections.abc import Callable
from typing import Any

import orjson

from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.typing import Typing
from homeserver.rooms.rendering import Renderer
from homeserver.sync import assemble
from homeserver.sync.room_ephemeral import receipt_event
from homeserver.sync.tokens import sync_token, timeline_token
from homeserver.web.socket import SharedFrame
from storage.log.append import Entry, Kind, Log
from storage.log.receipts import PRIVATE_REF, Receipt


class LiveFrames:
    """Builds the shared frame of a released entry."""

    def __init__(self, log: Log, typing: Typing, presence: Presence, now_ms: Callable[[], int]) -> None:
        self._log = log
        self._typing = typing
        self._presence = presence
        self._now_ms = now_ms

    def frame(self, entry: Entry) -> SharedFrame | None:
        """The frame for everybody whom the entry concerns; None when each reader may need something else.

        State events are left to the deltas: they come with counts, heroes and device lists that differ.
        """
        if entry.kind == Kind.EVENT:
            return self._event(entry)
        if entry.kind == Kind.TYPING:
            return self._room(entry, b'{"ephemeral":%b}' % assemble.events([self._typing.event(entry.room_id)]))
        if entry.kind == Kind.RECEIPT and entry.ref != PRIVATE_REF and isinstance(entry.note, Receipt):
            return self._room(entry, b'{"ephemeral":%b}' % assemble.events([receipt_event([entry.note])]))
        if entry.kind == Kind.PRESENCE:
            content = self._presence.content(entry.user_id)
            event = orjson.dumps({"type": "m.presence", "sender": entry.user_id, "content": content})
            return SharedFrame(assemble.presence_frame(sync_token(self._log.epoch, entry.position), event))
        return None

    def _event(self, entry: Entry) -> SharedFrame | None:
        note: Any = entry.note
        if note is None or note.state_key is not None:
            return None
        # Everybody who is sent this frame is joined; nobody's device is the sender's.
        event = Renderer(self._log, self._now_ms(), "", None).event(note.record, "join")
        cut = timeline_token(self._log.epoch, entry.position, note.seq)
        return self._room(entry, b'{"timeline":%b}' % assemble.timeline([event], False, cut))

    def _room(self, entry: Entry, room: bytes) -> SharedFrame:
        token = sync_token(self._log.epoch, entry.position)
        return SharedFrame(assemble.room_frame(token, entry.room_id, room))
