"""Read what history visibility needs to know from the log, and remember it.

A state root and an event id never change their meaning, so that what was read under one may be kept. Memory is bounded
by counts; losing any of it costs reading it again.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import orjson

from homeserver.rooms.visibility import Sight, Standing, known_visibility
from storage.log import events as event_log
from storage.log.rooms import RoomMeta
from storage.log.state_map import StateMap
from storage.log.view import View

MAX_WALK = 200
"""How many former memberships are followed back to find out when somebody was last joined."""


class Member(NamedTuple):
    """What a member event says; ``sequence`` is its place in the room, None for an outlier."""

    membership: str
    sequence: int | None
    state_before: bytes


class Sights:
    """Makes the ``Sight`` of any reader in any room; shared by all endpoints that read events."""

    def __init__(self, max_remembered: int = 50_000) -> None:
        self._standings: OrderedDict[tuple[bytes, str], Standing] = OrderedDict()
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._visibilities: OrderedDict[str, str] = OrderedDict()
        self._max = max_remembered

    def sight(self, view: View, meta: RoomMeta, user_id: str) -> Sight:
        """The sight of a user in a room; valid as long as ``view`` is."""
        return Sight(
            user_id,
            lambda root: self.standing(view, meta.nid, root, user_id),
            lambda: self.last_joined(view, meta, user_id),
        )

    def standing(self, view: View, room_nid: int, root: bytes, user_id: str) -> Standing:
        """The user's standing in one state of a room."""
        key = (root, user_id)
        found = self._standings.get(key)
        if found is None:
            states = StateMap(view, room_nid)
            found = Standing(
                self._visibility(view, states.get(root, "m.room.history_visibility", "") if root else None),
                self.membership(view, states.get(root, "m.room.member", user_id) if root else None),
            )
            self._keep(self._standings, key, found)
        return found

    def membership(self, view: View, event_id: str | None) -> str:
        """What a member event says; ``leave`` for no event."""
        member = None if event_id is None else self.member(view, event_id)
        return "leave" if member is None else member.membership

    def member(self, view: View, event_id: str) -> Member | None:
        """A member event's meaning, None when it is not stored."""
        found = self._members.get(event_id)
        if found is None:
            record = event_log.event_by_id(view, event_id)
            if record is None:
                return None
            membership = _content(record).get("membership")
            found = Member(
                membership if isinstance(membership, str) else "leave", record.seq, record.state_before
            )
            self._keep(self._members, event_id, found)
        return found

    def last_joined(self, view: View, meta: RoomMeta, user_id: str) -> float | None:
        """The sequence number until which the user was joined: infinite while joined, None when they never were."""
        states = StateMap(view, meta.nid)
        event_id = states.get(meta.state_root, "m.room.member", user_id)
        ended = float("inf")
        for _ in range(MAX_WALK):
            member = None if event_id is None else self.member(view, event_id)
            if member is None:
                return None
            if member.membership == "join":
                return ended
            if member.sequence is None:
                return None
            ended = member.sequence
            event_id = states.get(member.state_before, "m.room.member", user_id) if member.state_before else None
        return None

    def forget_places(self) -> None:
        """A room was deleted: its events get other places if it is entered again."""
        self._members.clear()

    def _visibility(self, view: View, event_id: str | None) -> str:
        if event_id is None:
            return known_visibility(None)
        found = self._visibilities.get(event_id)
        if found is None:
            record = event_log.event_by_id(view, event_id)
            found = known_visibility(None if record is None else _content(record).get("history_visibility"))
            self._keep(self._visibilities, event_id, found)
        return found

    def _keep(self, memory: "OrderedDict[Any, Any]", key: Any, value: Any) -> None:
        memory[key] = value
        if len(memory) > self._max:
            memory.popitem(last=False)


def _content(record: Any) -> dict[str, Any]:
    content = orjson.loads(record.content_json)
    return content if isinstance(content, dict) else {}
