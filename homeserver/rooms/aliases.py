"""Room aliases and the listing of rooms, kept in the log so that a room and its alias are made in one append.

Client-Server API, "Room aliases". An alias has one owner: whoever stages it first, since turns do not interleave.
"""

from dataclasses import dataclass

import msgspec

from storage.log.append import Batch, Log, Snapshot
from storage.log.catalog import ALIASES, PUBLISHED_ROOMS, ROOM_ALIASES
from storage.log.keys import after_prefix, part


class Alias(msgspec.Struct, array_like=True):
    """What is stored for one alias of this server."""

    room_id: str
    creator: str


@dataclass(frozen=True, slots=True)
class Aliases:
    """Aliases of this server's name, seen from the write side of the log."""

    log: Log

    def find(self, alias: str) -> Alias | None:
        """The alias's room and creator, None if nobody has made it."""
        value = self.log.get(ALIASES, part(alias))
        return None if value is None else msgspec.msgpack.decode(value, type=Alias)

    def room_of(self, alias: str) -> str | None:
        """The room that the alias points to."""
        found = self.find(alias)
        return None if found is None else found.room_id

    def put(self, batch: Batch, alias: str, room_id: str, creator: str) -> None:
        """Point an alias to a room."""
        batch.put(ALIASES, part(alias), msgspec.msgpack.encode(Alias(room_id, creator)))
        batch.put(ROOM_ALIASES, part(room_id) + part(alias), alias.encode())

    def delete(self, batch: Batch, alias: str, room_id: str) -> None:
        """Take an alias away."""
        batch.delete(ALIASES, part(alias))
        batch.delete(ROOM_ALIASES, part(room_id) + part(alias))

    def of_room(self, snapshot: Snapshot, room_id: str) -> list[str]:
        """All aliases of this server that point to the room, sorted."""
        prefix = part(room_id)
        return [value.decode() for _, value in snapshot.range(ROOM_ALIASES, prefix, after_prefix(prefix))]

    def is_published(self, room_id: str) -> bool:
        """Whether the room is listed in this server's directory."""
        return self.log.get(PUBLISHED_ROOMS, part(room_id)) is not None

    def publish(self, batch: Batch, room_id: str, listed: bool) -> None:
        """List a room in the directory or take it out."""
        if listed:
            batch.put(PUBLISHED_ROOMS, part(room_id), room_id.encode())
        else:
            batch.delete(PUBLISHED_ROOMS, part(room_id))

    def published(self, snapshot: Snapshot) -> list[str]:
        """Ids of all listed rooms."""
        return [value.decode() for _, value in snapshot.range(PUBLISHED_ROOMS, b"\0", b"\xff" * 8)]

    def succeed(self, batch: Batch, old_room: str, new_room: str) -> None:
        """Give a room's aliases and its place in the directory to its successor ("Room Upgrades")."""
        with self.log.snapshot() as snapshot:
            aliases = self.of_room(snapshot, old_room)
        for alias in aliases:
            found = self.find(alias)
            if found is not None:
                self.delete(batch, alias, old_room)
                self.put(batch, alias, new_room, found.creator)
        if self.is_published(old_room):
            self.publish(batch, old_room, False)
            self.publish(batch, new_room, True)
