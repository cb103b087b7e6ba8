"""Who is in which room: a cache in memory over the log's indexes.

Loaded from a snapshot when somebody asks, kept right by following the log: it has to be the feed's first follower, so
that whoever is woken finds it up to date. It holds what is released, never what is merely submitted.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from twisted.logger import Logger

from homeserver.rooms.notes import MembersMoved
from storage.log import rooms as room_log
from storage.log.append import Entry, Kind, Log
from storage.log.rooms import MembershipRecord
from storage.log.state_map import StateMap

_report = Logger()

MAX_USERS = 20_000
MAX_ROOMS = 5_000


class Memberships:
    """Rooms of users and users of rooms. Answers are live views: do not change or keep them."""

    def __init__(self, log: Log, max_users: int = MAX_USERS, max_rooms: int = MAX_ROOMS) -> None:
        self._log = log
        self._users: OrderedDict[str, dict[str, MembershipRecord]] = OrderedDict()
        self._joined: OrderedDict[str, dict[str, MembershipRecord]] = OrderedDict()
        self._rooms: OrderedDict[str, set[str]] = OrderedDict()
        self._max_users = max_users
        self._max_rooms = max_rooms

    def rooms_of(self, user_id: str) -> Mapping[str, MembershipRecord]:
        """All rooms of which the user is, was or is invited to be a member and that they have not forgotten."""
        rooms = self._users.get(user_id)
        if rooms is None:
            with self._log.snapshot() as snapshot:
                found = room_log.membership_of(snapshot, user_id)
            rooms = {room_id: record for room_id, record in found.items() if not record.forgotten}
            self._users[user_id] = rooms
            self._joined[user_id] = {room: record for room, record in rooms.items() if record.membership == "join"}
            if len(self._users) > self._max_users:
                gone, _ = self._users.popitem(last=False)
                self._joined.pop(gone, None)
        return rooms

    def joined_rooms(self, user_id: str) -> Mapping[str, MembershipRecord]:
        """The rooms that the user is joined to."""
        if user_id not in self._joined:
            self.rooms_of(user_id)
        return self._joined[user_id]

    def joined_users(self, room_id: str) -> set[str]:
        """The users joined to a room."""
        users = self._rooms.get(room_id)
        if users is None:
            try:
                users = self._load_room(room_id)
            except ValueError:
                _report.failure("{room_id} is damaged and counts as empty: run check-log", room_id=room_id)
                users = set()
            self._rooms[room_id] = users
            if len(self._rooms) > self._max_rooms:
                self._rooms.popitem(last=False)
        return users

    def membership(self, user_id: str, room_id: str) -> MembershipRecord | None:
        """The user's membership in a room, None when they have none or have forgotten it."""
        return self.rooms_of(user_id).get(room_id)

    def is_joined(self, user_id: str, room_id: str) -> bool:
        """Whether the user is joined to the room."""
        return room_id in self.joined_rooms(user_id)

    def share_room(self, one: str, other: str) -> bool:
        """Whether both are joined to the same room."""
        return any(other in self.joined_users(room_id) for room_id in self.joined_rooms(one))

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take released entries in. To be the feed's first follower."""
        changed: set[tuple[str, str]] = set()
        for entry in entries:
            if entry.kind == Kind.EVENT:
                note = entry.note
                if note is None:
                    self.forget_room(entry.room_id)
                elif (target := getattr(note, "target", None)) is not None:
                    changed.add((target, entry.room_id))
            elif entry.kind == Kind.MEMBERSHIP:
                changed.add((entry.user_id, entry.room_id))
            elif isinstance(entry.note, MembersMoved):
                changed.update((user_id, entry.room_id) for user_id in entry.note.users)
        if changed:
            with self._log.snapshot() as snapshot:
                for user_id, room_id in changed:
                    self._refresh(user_id, room_id, room_log.membership_in(snapshot, user_id, room_id))

    def _refresh(self, user_id: str, room_id: str, record: MembershipRecord | None) -> None:
        joined = record is not None and record.membership == "join"
        users = self._rooms.get(room_id)
        if users is not None:
            (users.add if joined else users.discard)(user_id)
        rooms = self._users.get(user_id)
        if rooms is None:
            return
        if record is None or record.forgotten:
            rooms.pop(room_id, None)
        else:
            rooms[room_id] = record
        if joined and record is not None:
            self._joined[user_id][room_id] = record
        else:
            self._joined[user_id].pop(room_id, None)

    def forget_room(self, room_id: str) -> None:
        """Ask the log again: the room was deleted, or an event has no note, so that nothing is known of what it changed."""
        self._rooms.pop(room_id, None)
        for user_id in [user for user, rooms in self._users.items() if room_id in rooms]:
            del self._users[user_id]
            self._joined.pop(user_id, None)

    def _load_room(self, room_id: str) -> set[str]:
        with self._log.snapshot() as snapshot:
            meta = room_log.room_meta(snapshot, room_id)
            if meta is None:
                return set()
            states = StateMap(snapshot, meta.nid)
            joined = set()
            for (_, user_id), _ in states.items(meta.state_root, "m.room.member"):
                record = room_log.membership_in(snapshot, user_id, room_id)
                if record is not None and record.membership == "join":
                    joined.add(user_id)
            return joined
