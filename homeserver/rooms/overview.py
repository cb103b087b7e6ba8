"""What can be told of a room to people who are not in it: its face, how to get in, who may know of it at all.

Client-Server API, "Listing rooms" and "Room Summary". Read from what is durable; kept as long as the room's state root
stays the same.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from twisted.logger import Logger

from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Entry, Kind
from storage.log.removal import is_blocked
from storage.log.rooms import RoomMeta
from storage.log.state_map import StateMap
from storage.log.view import View

_report = Logger()

OPEN_RULES = frozenset({"public", "knock", "knock_restricted"})
"""Join rules under which anybody may know of a room."""

RESTRICTED_RULES = frozenset({"restricted", "knock_restricted"})

_TEXTS = (
    ("name", "m.room.name", "name"),
    ("topic", "m.room.topic", "topic"),
    ("canonical_alias", "m.room.canonical_alias", "alias"),
    ("avatar_url", "m.room.avatar", "url"),
    ("room_type", "m.room.create", "type"),
)


class Overviews:
    """Makes room overviews; remembers the newest of each room."""

    def __init__(self, most: int = 5_000) -> None:
        self._most = most
        self._kept: OrderedDict[str, tuple[bytes, dict[str, Any]]] = OrderedDict()

    def of(self, view: View, room_id: str) -> dict[str, Any] | None:
        """A room's ``PublicRoomsChunk`` with ``room_version``, ``encryption`` and ``allowed_room_ids``, or None.

        None for a room that nobody of this server is in, since its state may be out of date. Not to be changed.
        """
        try:
            return self._of(view, room_id)
        except ValueError:
            _report.failure("{room_id} is damaged and left out of lists: run check-log", room_id=room_id)
            return None

    def _of(self, view: View, room_id: str) -> dict[str, Any] | None:
        meta = room_log.room_meta(view, room_id)
        if meta is None or not meta.last_seq or not meta.joined or meta.quarantined or is_blocked(view, room_id):
            return None
        kept = self._kept.get(room_id)
        if kept is not None and kept[0] == meta.state_root:
            self._kept.move_to_end(room_id)
            return kept[1]
        overview = _overview(view, meta)
        self._kept[room_id] = (meta.state_root, overview)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return overview

    def follow(self, entries: Sequence[Entry]) -> None:
        """Forget rooms in which something was redacted: their state root stays, what it says does not."""
        for entry in entries:
            if entry.kind == Kind.REDACTION:
                self._kept.pop(entry.room_id, None)

    def may_know(self, view: View, user_id: str | None, room_id: str, overview: Mapping[str, Any]) -> bool:
        """Whether a user (None: anybody) may know that the room exists."""
        if overview["world_readable"] or overview["join_rule"] in OPEN_RULES:
            return True
        if user_id is None:
            return False
        record = room_log.membership_in(view, user_id, room_id)
        if record is not None and record.membership in ("join", "invite", "knock"):
            return True
        return any(
            (other := room_log.membership_in(view, user_id, allowed)) is not None and other.membership == "join"
            for allowed in overview.get("allowed_room_ids", ())
        )


def _overview(view: View, meta: RoomMeta) -> dict[str, Any]:
    states = StateMap(view, meta.nid)

    def content(type_: str) -> Mapping[str, Any]:
        event_id = states.get(meta.state_root, type_)
        record = None if event_id is None else event_log.event_by_id(view, event_id)
        return {} if record is None else orjson.loads(record.content_json)

    rules = content("m.room.join_rules")
    rule = rules.get("join_rule")
    overview: dict[str, Any] = {
        "room_id": meta.room_id,
        "num_joined_members": meta.joined,
        "world_readable": content("m.room.history_visibility").get("history_visibility") == "world_readable",
        "guest_can_join": content("m.room.guest_access").get("guest_access") == "can_join",
        "join_rule": rule if isinstance(rule, str) else "invite",
        "room_version": meta.version,
    }
    for key, type_, name in _TEXTS:
        value = content(type_).get(name)
        if isinstance(value, str) and value:
            overview[key] = value
    algorithm = content("m.room.encryption").get("algorithm")
    if isinstance(algorithm, str):
        overview["encryption"] = algorithm
    if overview["join_rule"] in RESTRICTED_RULES:
        overview["allowed_room_ids"] = allowed_rooms(rules.get("allow"))
    return overview


def allowed_rooms(conditions: object) -> list[str]:
    """The rooms whose members a restricted join rule lets in (m.room.join_rules, "allow")."""
    return [
        condition["room_id"]
        for condition in (conditions if isinstance(conditions, list) else ())
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
        and 0 < len(condition["room_id"].encode("utf-8", "surrogatepass")) <= 255
    ]
