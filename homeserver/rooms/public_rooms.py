"""The directory of listed rooms, as a client sees it.

Client-Server API, "Listing rooms". Built from the rooms' current state when asked; entries are kept as long as the room's
state root stays the same, so that asking again costs a sort.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.room import Room, Rooms

MAX_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the directory."""

    chunk: list[dict[str, Any]]
    total: int
    next_batch: str | None
    prev_batch: str | None

    def body(self) -> dict[str, Any]:
        """The answer's JSON object."""
        body: dict[str, Any] = {"chunk": self.chunk, "total_room_count_estimate": self.total}
        if self.next_batch is not None:
            body["next_batch"] = self.next_batch
        if self.prev_batch is not None:
            body["prev_batch"] = self.prev_batch
        return body


class PublicRooms:
    """Lists rooms, the largest first."""

    def __init__(self, rooms: Rooms, aliases: Aliases) -> None:
        self._rooms = rooms
        self._aliases = aliases
        self._kept: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def page(
        self, limit: int | None, since: str | None, term: str | None, room_types: Iterable[str | None] | None
    ) -> Page:
        """One page. MatrixError 400 M_INVALID_PARAM for a token that is none of ours."""
        start = _parse_token(since)
        size = MAX_LIMIT if limit is None or limit <= 0 else min(limit, MAX_LIMIT)
        wanted = None if room_types is None else set(room_types)
        entries = [entry for entry in self._entries() if _matches(entry, term, wanted)]
        entries.sort(key=lambda entry: (-entry["num_joined_members"], entry["room_id"]))
        end = start + size
        return Page(
            entries[start:end],
            len(entries),
            _token(end) if end < len(entries) else None,
            _token(max(0, start - size)) if start > 0 else None,
        )

    def entry(self, room: Room) -> dict[str, Any]:
        """What the directory tells of one room (PublicRoomsChunk)."""
        root = room.meta.state_root
        kept = self._kept.get(room.room_id)
        if kept is not None and kept[0] == root:
            return kept[1]
        visibility = room.content("m.room.history_visibility").get("history_visibility")
        entry: dict[str, Any] = {
            "room_id": room.room_id,
            "num_joined_members": room.meta.joined,
            "world_readable": visibility == "world_readable",
            "guest_can_join": room.content("m.room.guest_access").get("guest_access") == "can_join",
            "join_rule": room.join_rule(),
        }
        for key, type_, field in (
            ("name", "m.room.name", "name"),
            ("topic", "m.room.topic", "topic"),
            ("canonical_alias", "m.room.canonical_alias", "alias"),
            ("avatar_url", "m.room.avatar", "url"),
            ("room_type", "m.room.create", "type"),
        ):
            value = room.content(type_).get(field)
            if isinstance(value, str) and value:
                entry[key] = value
        self._kept[room.room_id] = (root, entry)
        return entry

    def _entries(self) -> list[dict[str, Any]]:
        with self._rooms.log.snapshot() as snapshot:
            ids = self._aliases.published(snapshot)
        for gone in self._kept.keys() - set(ids):
            del self._kept[gone]
        entries = []
        for room_id in ids:
            room = self._rooms.find(room_id)
            if room is not None:
                entries.append(self.entry(room))
        return entries


def _matches(entry: dict[str, Any], term: str | None, room_types: set[str | None] | None) -> bool:
    if room_types is not None and entry.get("room_type") not in room_types:
        return False
    if not term:
        return True
    term = term.casefold()
    return any(term in entry.get(key, "").casefold() for key in ("name", "topic", "canonical_alias"))


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(b"p%d" % offset).decode().rstrip("=")


def _parse_token(token: str | None) -> int:
    if token is None or token == "":
        return 0
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if text[:1] != b"p" or len(text) > 12:
            raise ValueError(token)
        return max(0, int(text[1:]))
    except ValueError:
        raise MatrixError(400, "M_INVALID_PARAM", "since is not a token of this server") from None
