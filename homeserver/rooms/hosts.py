"""Which servers are in which rooms: counts of joined members, kept in memory and right by following the log.

To be added to the feed behind `Memberships` and before whoever asks.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from federation.rules.ids import server_name_of
from homeserver.rooms.memberships import Memberships
from storage.log.append import Entry, Kind

MAX_ROOMS = 5_000


class Hosts:
    """Servers of rooms, our own excepted. Answers are live views: do not change or keep them."""

    def __init__(
        self,
        server_name: str,
        memberships: Memberships,
        max_rooms: int = MAX_ROOMS,
        told: Callable[[str], Iterable[str]] = lambda room_id: (),
    ) -> None:
        """``told`` names the servers of a room whose members are not all known."""
        self._server_name = server_name
        self._memberships = memberships
        self._told = told
        self._rooms: OrderedDict[str, Counter[str]] = OrderedDict()
        self._ours: dict[str, int] = {}
        self._max_rooms = max_rooms

    def servers(self, room_id: str) -> Mapping[str, int]:
        """Other servers in a room with the number of their joined members."""
        counts = self._rooms.get(room_id)
        if counts is None:
            counts = Counter(server_name_of(user_id) for user_id in self._memberships.joined_users(room_id))
            self._ours[room_id] = counts.pop(self._server_name, 0)
            for name in self._told(room_id):
                counts.setdefault(name, 1)
            counts.pop(self._server_name, None)
            # In the order of names: that of a set changes from run to run, and with it what is sent first.
            counts = self._rooms[room_id] = Counter(dict(sorted(counts.items())))
            if len(self._rooms) > self._max_rooms:
                self._forget(next(iter(self._rooms)))
        return counts

    def is_here(self, room_id: str) -> bool:
        """Whether a user of ours is joined to a room."""
        self.servers(room_id)
        return self._ours[room_id] > 0

    def joined_since(self, server: str, room_id: str) -> int:
        """Position of the first of the memberships by which a server is in a room now; 0 if none is known."""
        users = (user_id for user_id in self._memberships.joined_users(room_id) if server_name_of(user_id) == server)
        found = (self._memberships.membership(user_id, room_id) for user_id in users)
        return min((record.position for record in found if record is not None), default=0)

    def servers_of_user(self, user_id: str) -> Collection[str]:
        """Other servers that share a room with a user."""
        found: dict[str, None] = {}
        for room_id in self._memberships.joined_rooms(user_id):
            found |= dict.fromkeys(self.servers(room_id))
        return found.keys()

    def servers_met(self, user_id: str, room_id: str) -> Collection[str]:
        """Other servers in a room that share no other room with a user."""
        met = dict.fromkeys(self.servers(room_id))
        for other in self._memberships.joined_rooms(user_id) if met else ():
            if other != room_id:
                for server in met.keys() & self.servers(other).keys():
                    del met[server]
        return met.keys()

    def our_users(self, room_id: str) -> list[str]:
        """Users of this server who are joined to a room, in order."""
        suffix = f":{self._server_name}"
        users = self._memberships.joined_users(room_id) if self.is_here(room_id) else ()
        return sorted(user_id for user_id in users if user_id.endswith(suffix))

    def forget_room(self, room_id: str) -> None:
        """The room was deleted."""
        self._forget(room_id)

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take released entries in."""
        for entry in entries:
            if entry.kind == Kind.EVENT:
                note = entry.note
                if note is None:
                    self._forget(entry.room_id)
                elif (target := getattr(note, "target", None)) is not None:
                    self._moved(entry.room_id, target, note)
            elif entry.kind in (Kind.MEMBERSHIP, Kind.ROOM):
                self._forget(entry.room_id)

    def _forget(self, room_id: str) -> None:
        self._rooms.pop(room_id, None)
        self._ours.pop(room_id, None)

    def _moved(self, room_id: str, target: str, note: object) -> None:
        counts = self._rooms.get(room_id)
        server = server_name_of(target)
        before = getattr(note, "prev_membership", None) == "join"
        after = getattr(note, "membership", None) == "join"
        if counts is None or before == after:
            return
        if server == self._server_name and after and not self._ours[room_id]:
            self._forget(room_id)  # we come in: what was known of the room was known from an invite, or from another time
            return
        if server == self._server_name:
            self._ours[room_id] += 1 if after else -1
            return
        counts[server] += 1 if after else -1
        if counts[server] <= 0:
            del counts[server]
