"""The directory of listed rooms, as a client sees it.

Client-Server API, "Listing rooms". Put together from the rooms' overviews when asked: asking again costs a sort.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.overview import Overviews
from storage.log.append import Log

MAX_LIMIT = 500

PRIVATE = ("room_version", "encryption", "allowed_room_ids")
"""What a room's summary tells beyond its entry in the directory."""


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

    def __init__(self, log: Log, aliases: Aliases, overviews: Overviews) -> None:
        self._log = log
        self._aliases = aliases
        self._overviews = overviews

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
            [{key: value for key, value in entry.items() if key not in PRIVATE} for entry in entries[start:end]],
            len(entries),
            _token(end) if end < len(entries) else None,
            _token(max(0, start - size)) if start > 0 else None,
        )

    def _entries(self) -> list[dict[str, Any]]:
        with self._log.snapshot() as snapshot:
            found = [self._overviews.of(snapshot, room_id) for room_id in self._aliases.published(snapshot)]
        return [overview for overview in found if overview is not None]


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
