"""What another server may see of a room's history.

Client-Server API, "Room history visibility": an event is for a server when history is shared or world readable there, or
when one of its users was in the room (or invited, where that counts) at the event. Anything else is sent redacted, and so
is what somebody said who has asked to be forgotten.
"""

from collections import OrderedDict

import orjson

from federation.rules.checks import redacted_event
from federation.rules.event import Event
from federation.rules.ids import server_name_of
from federation.rules.room_versions import RoomVersion
from homeserver.rooms.erasure import is_erased
from homeserver.rooms.visibility import INVITED, SHARED, WORLD_READABLE, known_visibility
from storage.log import events as event_log
from storage.log.events import EventRecord
from storage.log.state_map import StateMap
from storage.log.view import View

MAX_REMEMBERED = 20_000


class PeerSight:
    """Answers what servers may see. What is remembered hangs on state roots, which never change their meaning."""

    def __init__(self) -> None:
        self._visible: OrderedDict[tuple[bytes, str], bool] = OrderedDict()

    def may_see(self, view: View, server: str, record: EventRecord) -> bool:
        """Whether a server may have an event with its content."""
        if self._allowed(view, server, record.room_nid, record.state_after):
            return True
        return record.type == "m.room.history_visibility" and self._allowed(
            view, server, record.room_nid, record.state_before
        )

    def pdu(self, view: View, server: str, record: EventRecord, version: RoomVersion) -> bytes:
        """The event as that server gets it."""
        if self.may_see(view, server, record) and not is_erased(view, record):
            return bytes(record.pdu)
        return redacted_event(Event.from_json(record.pdu, version, event_id=record.event_id)).json

    def was_in(self, view: View, server: str, room_nid: int, root: bytes, memberships: tuple[str, ...]) -> bool:
        """Whether a state has a user of the server with one of the memberships."""
        for (_, user_id), event_id in StateMap(view, room_nid).items(root, "m.room.member"):
            if server_name_of(user_id) == server:
                record = event_log.event_by_id(view, event_id)
                if record is not None and orjson.loads(record.content_json).get("membership") in memberships:
                    return True
        return False

    def _allowed(self, view: View, server: str, room_nid: int, root: bytes) -> bool:
        if not root:
            return True  # the very first event
        key = (root, server)
        found = self._visible.get(key)
        if found is None:
            found = self._visible[key] = self._judge(view, server, room_nid, root)
            if len(self._visible) > MAX_REMEMBERED:
                self._visible.popitem(last=False)
        return found

    def _judge(self, view: View, server: str, room_nid: int, root: bytes) -> bool:
        event_id = StateMap(view, room_nid).get(root, "m.room.history_visibility", "")
        record = None if event_id is None else event_log.event_by_id(view, event_id)
        content = {} if record is None else orjson.loads(record.content_json)
        visibility = known_visibility(content.get("history_visibility"))
        if visibility in (WORLD_READABLE, SHARED):
            return True
        wanted = ("join", "invite") if visibility == INVITED else ("join",)
        return self.was_in(view, server, room_nid, root, wanted)
