"""Which users of other servers share a room with us: only of their devices are we told, so that only those are kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from homeserver.keys.lookup import server_of
from homeserver.keys.peer_devices import PeerDevices
from storage.log.append import Entry, Kind, Log
from storage.log.remote_devices import all_remote_devices, is_known

USERS_AT_ONCE = 200
PAUSE = 0.05
"""Seconds between two parts of a long list, which leave the reactor to the people."""


class Members(Protocol):
    """Who is joined where; see :class:`homeserver.rooms.memberships.Memberships`."""

    def joined_rooms(self, user_id: str) -> Mapping[str, Any]:
        """Rooms of a user."""

    def joined_users(self, room_id: str) -> set[str]:
        """Users of a room."""


class OurRooms(Protocol):
    """Which rooms we are in; see :class:`homeserver.rooms.hosts.Hosts`."""

    def is_here(self, room_id: str) -> bool:
        """Whether a user of ours is joined to a room."""


class Tracked:
    """Add ``follow`` to the feed behind members and hosts: it forgets the devices of those who are met no more."""

    def __init__(
        self, server_name: str, log: Log, members: Members, rooms: OurRooms, call_later: Callable[..., Any]
    ) -> None:
        self._server_name = server_name
        self._log = log
        self._members = members
        self._rooms = rooms
        self._call_later = call_later
        self._stopped = False

    def __call__(self, user_id: str) -> bool:
        """Whether the user is joined to a room that a user of ours is joined to."""
        return any(map(self._rooms.is_here, self._members.joined_rooms(user_id)))

    def follow(self, devices: PeerDevices, entries: Sequence[Entry]) -> None:
        """Take released entries in."""
        for entry in entries:
            target = _left(entry)
            if target is None or self._is_joined(target, entry.room_id):
                continue
            if server_of(target) != self._server_name:
                self._forget(devices, [target])
            elif not self._rooms.is_here(entry.room_id):
                self._forget(devices, list(self._members.joined_users(entry.room_id)))

    def sweep(self, devices: PeerDevices, after: str = "") -> None:
        """Look through all that is kept, as after a start: forget strangers, report what is stale."""
        if self._stopped:
            return
        with self._log.snapshot() as snapshot:
            rows = list(all_remote_devices(snapshot, after, USERS_AT_ONCE))
        self._forget(devices, [row.user_id for row in rows])
        for row in rows:
            if row.stale and self(row.user_id):
                devices.on_stale(row.user_id)
        if len(rows) == USERS_AT_ONCE:
            self._call_later(PAUSE, self.sweep, devices, rows[-1].user_id)

    def stop(self) -> None:
        """Go on with nothing."""
        self._stopped = True

    def _is_joined(self, user_id: str, room_id: str) -> bool:
        return user_id in self._members.joined_users(room_id)

    def _forget(self, devices: PeerDevices, users: list[str]) -> None:
        """Forget those who share no room with us, a part at a time."""
        if self._stopped:
            return
        part = users[:USERS_AT_ONCE]
        gone = [user_id for user_id in part if is_known(self._log, user_id) and not self(user_id)]
        if gone:
            devices.forget(gone)
        if len(users) > USERS_AT_ONCE:
            self._call_later(0, self._forget, devices, users[USERS_AT_ONCE:])


def _left(entry: Entry) -> str | None:
    """The user whose membership an entry changes, unless they certainly joined."""
    if entry.kind == Kind.MEMBERSHIP:
        return entry.user_id
    note: Any = entry.note
    if entry.kind != Kind.EVENT or note is None or note.membership == "join":
        return None
    target: str | None = note.target
    return target
