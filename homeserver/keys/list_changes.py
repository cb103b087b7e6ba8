"""Whose keys a user has to fetch again, and whose no longer matter.

Client-Server API, "Tracking the device list for a user". Somebody is on the first list when their devices or keys
changed, when they and the user came to share a room, or when they were invited to one of the user's, so that the first
message can be encrypted for them as well; on the second when the last room that they shared is gone.
Naming somebody once too often costs a query, missing somebody breaks encryption: where the past is not at hand the
answer errs on that side.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from storage.log.append import Entry, Kind, unpack_entry
from storage.log.catalog import EVENTS, LOG
from storage.log.device_lists import changes_between
from storage.log.events import EventRecord
from storage.log.keys import from_u64, u64
from storage.log.view import Snapshot

MAX_ENTRIES = 20_000
"""How many log entries are read back for one answer."""


class Members(Protocol):
    """Who is joined where now; see :class:`homeserver.rooms.memberships.Memberships`."""

    def joined_rooms(self, user_id: str) -> Mapping[str, Any]:
        """Rooms of a user."""

    def joined_users(self, room_id: str) -> set[str]:
        """Users of a room."""


class Recent(Protocol):
    """The newest log entries with what the engine said about them; see :class:`homeserver.feed.Feed`."""

    def entries_after(self, position: int) -> Sequence[Entry] | None:
        """Oldest first; None when that is too long ago."""


class _Change(NamedTuple):
    """A member event, or a membership that changed without one; ``was_joined`` None when the state before is not at hand."""

    room_id: str
    target: str
    was_joined: bool | None
    invited: bool = False


class DeviceListChanges:
    """Answers for `/sync` and `/keys/changes`."""

    def __init__(self, members: Members, recent: Recent) -> None:
        self._members = members
        self._recent = recent

    def between(self, snapshot: Snapshot, user_id: str, after: int, upto: int) -> tuple[list[str], list[str]]:
        """``(changed, left)`` for what happened after position ``after`` up to ``upto``, each sorted by user ID.

        Changes of keys are reported for the user as well as for everybody who shares a room with them now.
        """
        members = self._members
        mine = members.joined_rooms(user_id)
        changes = self._member_changes(snapshot, after, upto)
        if changes is None:
            return sorted(self._everybody(mine)), []
        changed, left = self._meetings(user_id, mine, changes)
        for other, viewer in changes_between(snapshot, after, upto):
            # What the user signed of another's keys concerns the user, wherever the other one is.
            if viewer == user_id or (viewer is None and (other == user_id or self._shares(mine, other))):
                changed.add(other)
        return sorted(changed), sorted(left)

    def _meetings(self, user_id: str, mine: Mapping[str, Any], changes: Iterable[_Change]) -> tuple[set[str], set[str]]:
        """Who came to share a room with the user, and who shares none any more."""
        new_rooms: set[str] = set()
        arrived: dict[str, set[str]] = {}
        maybe_left: set[str] = set()
        invited: set[str] = set()
        for room_id, target, was_joined, is_invited in changes:
            users = self._members.joined_users(room_id)
            if target in users:
                if was_joined or room_id not in mine:
                    continue
                if target == user_id:
                    new_rooms.add(room_id)
                else:
                    arrived.setdefault(target, set()).add(room_id)
            elif target == user_id:
                maybe_left |= users
            elif is_invited and room_id in mine:
                invited.add(target)
            elif was_joined is not False and room_id in mine:
                maybe_left.add(target)
        for room_id in new_rooms:
            for other in self._members.joined_users(room_id):
                arrived.setdefault(other, set()).add(room_id)
        changed = {
            other for other, rooms in arrived.items() if not self._shares(mine.keys() - rooms - new_rooms, other)
        }
        changed |= {other for other in invited if not self._shares(mine, other)}
        changed.discard(user_id)
        left = {other for other in maybe_left - invited if other != user_id and not self._shares(mine, other)}
        return changed, left

    def _shares(self, rooms: Iterable[str], other: str) -> bool:
        return any(other in self._members.joined_users(room_id) for room_id in rooms)

    def _everybody(self, rooms: Iterable[str]) -> set[str]:
        return {other for room_id in rooms for other in self._members.joined_users(room_id)}

    def _member_changes(self, snapshot: Snapshot, after: int, upto: int) -> Iterable[_Change] | None:
        """Member events in the range; None when it is too long to be read."""
        entries = self._recent.entries_after(after)
        if entries is not None and all(entry.note is not None for entry in entries if entry.kind == Kind.EVENT):
            return _from_notes(entries, upto)
        if sum(1 for _ in snapshot.range(LOG, u64(after + 1), u64(upto + 1), limit=MAX_ENTRIES)) == MAX_ENTRIES:
            return None
        return _from_log(snapshot, after, upto)


def _from_notes(entries: Sequence[Entry], upto: int) -> Iterator[_Change]:
    for entry in entries:
        if entry.kind == Kind.EVENT and entry.position <= upto:
            note: Any = entry.note
            if note.target is not None:
                yield _Change(entry.room_id, note.target, note.prev_membership == "join", note.membership == "invite")
        elif entry.kind == Kind.MEMBERSHIP and entry.position <= upto:
            yield _Change(entry.room_id, entry.user_id, None)


def _from_log(snapshot: Snapshot, after: int, upto: int) -> Iterator[_Change]:
    for key, value in snapshot.range(LOG, u64(after + 1), u64(upto + 1)):
        if value[0] not in (Kind.EVENT, Kind.MEMBERSHIP):
            continue
        entry = unpack_entry(from_u64(key), value)
        if entry.kind == Kind.MEMBERSHIP:
            yield _Change(entry.room_id, entry.user_id, None)
            continue
        data = snapshot.get(EVENTS, entry.ref)
        if data is not None:
            record = EventRecord(data)
            if record.type == "m.room.member" and record.state_key is not None:
                membership = orjson.loads(record.content_json).get("membership")
                yield _Change(entry.room_id, record.state_key, None, membership == "invite")
