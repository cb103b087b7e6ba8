"""A room's summary: how many members, and the heroes that give a nameless room its name.

Specification: Client-Server API, "GET /sync" (``RoomSummary``) and "Calculating the display name for a room".
"""

from collections import OrderedDict

import orjson

from homeserver.rooms.sight import Sights
from homeserver.sync import assemble
from homeserver.sync.scope import Scope
from storage.log import events as event_log
from storage.log.rooms import RoomMeta

HEROES = 5
MAX_REMEMBERED = 10_000
MAX_MEMBERS = 200
"""Members looked at for heroes: rooms that are bigger have a name, or have to do with these."""


class Summaries:
    """Summaries of rooms; heroes are remembered by state, which never changes its meaning."""

    def __init__(self, sights: Sights) -> None:
        self._sights = sights
        self._heroes: OrderedDict[tuple[int, bytes], list[str] | None] = OrderedDict()

    def summary(self, scope: Scope, meta: RoomMeta, root: bytes) -> bytes:
        """The section ``summary`` as JSON bytes."""
        return assemble.summary(self.heroes(scope, meta, root), meta.joined, meta.invited)

    def heroes(self, scope: Scope, meta: RoomMeta, root: bytes) -> list[str] | None:
        """The first five other members of a room without a name; None for a room with one."""
        key = (meta.nid, root)
        if key not in self._heroes:
            self._heroes[key] = self._find(scope, meta, root)
            if len(self._heroes) > MAX_REMEMBERED:
                self._heroes.popitem(last=False)
        found = self._heroes[key]
        return None if found is None else [user for user in found if user != scope.user_id][:HEROES]

    def _find(self, scope: Scope, meta: RoomMeta, root: bytes) -> list[str] | None:
        """One more than needed, as the reader may be among them."""
        if self._named(scope, meta, root):
            return None
        here: list[tuple[int, str]] = []
        gone: list[tuple[int, str]] = []
        for count, ((_, user), event_id) in enumerate(scope.states(meta.nid).items(root, "m.room.member")):
            if count >= MAX_MEMBERS:
                break
            member = self._sights.member(scope.view, event_id)
            if member is not None:
                ranks = here if member.membership in ("join", "invite") else gone
                ranks.append((member.sequence or 0, user))
        chosen = sorted(here) if len(here) > 1 else sorted(here) + sorted(gone)
        return [user for _, user in chosen[: HEROES + 1]]

    def _named(self, scope: Scope, meta: RoomMeta, root: bytes) -> bool:
        states = scope.states(meta.nid)
        for type_, key in (("m.room.name", "name"), ("m.room.canonical_alias", "alias")):
            event_id = states.get(root, type_, "")
            record = None if event_id is None else event_log.event_by_id(scope.view, event_id)
            if record is not None and orjson.loads(record.content_json).get(key):
                return True
        return False
