"""Which servers are in a room: those of its joined members, counted; and which of them the room's access list lets in.

Kept by state root and carried on by what two states differ in, so that a large room is counted once.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping

from federation.rules.ids import server_name_of
from federation.rules.server_acl import ServerAcl
from homeserver.rooms.room import Room, Rooms
from storage.log import rooms as room_log
from storage.log.partial_joins import partial_join

MAX_ROOMS = 2000
MAX_VERDICTS = 2000


class Servers:
    """The servers of rooms, on the write side."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._counted: OrderedDict[str, tuple[bytes, Counter[str]]] = OrderedDict()
        self._lists: OrderedDict[str, tuple[str, ServerAcl, dict[str, bool]]] = OrderedDict()

    def of(self, room: Room) -> Mapping[str, int]:
        """Servers with joined members and how many they have. Do not keep it."""
        root = room.meta.state_root
        kept = self._counted.get(room.room_id)
        if kept is not None and kept[0] == root:
            return kept[1]
        if kept is None:
            counts = self._count(room)
        else:
            counts = kept[1]
            for key, old, _ in room.state_map.diff(kept[0], root):
                if key[0] == "m.room.member":
                    server = server_name_of(key[1])
                    counts[server] += self._is_joined(room, key[1]) - self._joined(old)
                    if counts[server] <= 0:
                        del counts[server]
        self._counted[room.room_id] = (root, counts)
        self._counted.move_to_end(room.room_id)
        if len(self._counted) > MAX_ROOMS:
            self._counted.popitem(last=False)
        return counts

    def to_ask(self, room: Room) -> list[str]:
        """Other servers that can be asked about a room, those with the most members first."""
        counted = self.of(room)
        names = sorted(counted, key=lambda name: -counted[name])
        if room.meta.partial_state and (join := partial_join(self._rooms.log, room.room_id)) is not None:
            names += join.servers
        return [name for name in dict.fromkeys(names) if name != self._rooms.server_name]

    def is_in(self, server: str, room: Room) -> bool:
        """Whether a server has a joined member in the room now."""
        return server in self.of(room)

    def allowed(self, server: str, room: Room) -> bool:
        """Whether the room's access list lets a server take part; without a list every server may."""
        event = room.state("m.room.server_acl")
        if event is None:
            return True
        kept = self._lists.get(room.room_id)
        if kept is None or kept[0] != event.event_id:
            kept = self._lists[room.room_id] = (event.event_id, ServerAcl(event.content), {})
            if len(self._lists) > MAX_ROOMS:
                self._lists.popitem(last=False)
        verdicts = kept[2]
        if server not in verdicts:
            if len(verdicts) >= MAX_VERDICTS:
                verdicts.clear()
            verdicts[server] = kept[1].allows(server)
        return verdicts[server]

    def _count(self, room: Room) -> "Counter[str]":
        counts: Counter[str] = Counter()
        for user_id, _ in room.members():
            if self._is_joined(room, user_id):
                counts[server_name_of(user_id)] += 1
        return counts

    def _is_joined(self, room: Room, user_id: str) -> bool:
        record = room_log.membership_in(self._rooms.log, user_id, room.room_id)
        return record is not None and record.membership == "join"

    def _joined(self, event_id: str | None) -> int:
        event = None if event_id is None else self._rooms.event(event_id)
        return int(event is not None and event.content.get("membership") == "join")
