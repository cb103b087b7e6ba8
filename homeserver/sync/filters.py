"""Filters: which events a client wants, read from JSON that the client wrote.

Specification: Client-Server API, section "Filtering". A filter that was accepted once is applied to every event of a
sync, so that it is turned into sets here; a filter that lets everything pass is recognised and costs nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from federation.rules.errors import MatrixError

DEFAULT_TIMELINE_LIMIT = 10
MAX_LIMIT = 1000
MAX_LIST = 5000
MAX_STARS = 16


def _bad(what: str) -> MatrixError:
    return MatrixError(400, "M_BAD_JSON", f"Invalid filter: {what}")


def glob_matches(pattern: str, text: str) -> bool:
    """Whether ``text`` matches ``pattern``, in which ``*`` stands for any run of characters.

    Looks for the pieces from left to right: linear in the text for each piece, whatever the pattern.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    last = rest.pop()
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in rest:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@dataclass(frozen=True, slots=True)
class Names:
    """A list of event types: plain ones looked up, those with a ``*`` matched one by one."""

    plain: frozenset[str] = frozenset()
    globs: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        return name in self.plain or any(glob_matches(pattern, name) for pattern in self.globs)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """``EventFilter`` and ``RoomEventFilter`` of the specification; an absent list is None."""

    limit: int | None = None
    types: Names | None = None
    not_types: Names | None = None
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    related_by_senders: frozenset[str] | None = None
    related_by_rel_types: frozenset[str] | None = None
    everything: bool = field(default=True)

    def wants(self, type_: str, sender: str, has_url: Callable[[], bool]) -> bool:
        """Whether an event passes; ``has_url`` is asked only when the filter looks at ``content.url``."""
        if self.everything:
            return True
        if not self.wants_type(type_):
            return False
        if sender in self.not_senders or (self.senders is not None and sender not in self.senders):
            return False
        return self.contains_url is None or self.contains_url == has_url()

    def wants_type(self, type_: str) -> bool:
        """Whether events of this type can pass at all."""
        if self.everything:
            return True
        if self.not_types is not None and type_ in self.not_types:
            return False
        return self.types is None or type_ in self.types

    def wants_sender(self, sender: str) -> bool:
        """Whether events of this sender can pass at all."""
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    def wants_room(self, room_id: str) -> bool:
        """Whether events of this room can pass at all."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)


@dataclass(frozen=True, slots=True)
class SyncFilter:
    """A whole filter as given to ``/sync``."""

    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    rooms: EventFilter = EventFilter()
    ephemeral: EventFilter = EventFilter()
    room_account_data: EventFilter = EventFilter()
    state: EventFilter = EventFilter()
    timeline: EventFilter = EventFilter()
    include_leave: bool = False
    event_fields: tuple[tuple[str, ...], ...] | None = None
    federation_format: bool = False
    plain: bool = field(init=False)
    """Whether every event of every room passes and nothing about its form was asked for."""

    def __post_init__(self) -> None:
        # Asked for every reader of every event: worked out once.
        plain = (
            self.rooms.everything
            and self.timeline.everything
            and self.state.everything
            and self.ephemeral.everything
            and self.presence.everything
            and self.event_fields is None
            and not self.federation_format
        )
        object.__setattr__(self, "plain", plain)

    @property
    def timeline_limit(self) -> int:
        """The most timeline events of one room in an answer."""
        limit = self.timeline.limit
        return DEFAULT_TIMELINE_LIMIT if limit is None else min(limit, MAX_LIMIT)


EVERYTHING = SyncFilter()


def parse_filter(value: object) -> SyncFilter:
    """Check a filter and turn it into a SyncFilter.

    Raises MatrixError 400 ``M_BAD_JSON`` that names the first thing that is wrong. Unknown keys are ignored.
    """
    if not isinstance(value, dict):
        raise _bad("it is not an object")
    room = _object(value, "room")
    return SyncFilter(
        presence=_event_filter(value, "presence"),
        account_data=_event_filter(value, "account_data"),
        rooms=_parse_rooms(room),
        ephemeral=_event_filter(room, "ephemeral"),
        room_account_data=_event_filter(room, "account_data"),
        state=_event_filter(room, "state"),
        timeline=_event_filter(room, "timeline"),
        include_leave=_flag(room, "include_leave"),
        event_fields=_event_fields(value),
        federation_format=_event_format(value) == "federation",
    )


def parse_event_filter(value: object) -> EventFilter:
    """Check a single ``RoomEventFilter``, as ``/messages`` and ``/context`` take it."""
    return _event_filter({"filter": value}, "filter")


def _parse_rooms(room: dict[str, Any]) -> EventFilter:
    rooms, not_rooms = _ids(room, "rooms", "!"), _ids(room, "not_rooms", "!")
    return EventFilter(rooms=rooms, not_rooms=not_rooms or frozenset(), everything=rooms is None and not not_rooms)


def _event_filter(parent: dict[str, Any], key: str) -> EventFilter:
    raw = _object(parent, key)
    if not raw:
        return EventFilter()
    types, not_types = _names(raw, "types"), _names(raw, "not_types")
    senders, not_senders = _ids(raw, "senders", "@"), _ids(raw, "not_senders", "@")
    rooms, not_rooms = _ids(raw, "rooms", "!"), _ids(raw, "not_rooms", "!")
    contains_url = _optional_flag(raw, "contains_url")
    everything = (
        types is None and not not_types and senders is None and not not_senders
        and rooms is None and not not_rooms and contains_url is None
    )  # fmt: skip
    return EventFilter(
        limit=_limit(raw),
        types=types,
        not_types=not_types,
        senders=senders,
        not_senders=not_senders or frozenset(),
        rooms=rooms,
        not_rooms=not_rooms or frozenset(),
        contains_url=contains_url,
        lazy_load_members=_flag(raw, "lazy_load_members"),
        include_redundant_members=_flag(raw, "include_redundant_members"),
        unread_thread_notifications=_flag(raw, "unread_thread_notifications"),
        related_by_senders=_ids(raw, "related_by_senders", "@"),
        related_by_rel_types=_strings(raw, "related_by_rel_types"),
        everything=everything,
    )


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _bad(f"{key} is not an object")
    return value


def _strings(raw: dict[str, Any], key: str) -> frozenset[str] | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _bad(f"{key} is not a list of strings")
    if len(value) > MAX_LIST:
        raise _bad(f"{key} has more than {MAX_LIST} entries")
    return frozenset(value)


def _ids(raw: dict[str, Any], key: str, sigil: str) -> frozenset[str] | None:
    value = _strings(raw, key)
    for item in value or ():
        if not item.startswith(sigil) or len(item) > 255 or (sigil == "@" and ":" not in item):
            raise _bad(f"{key} holds something that is no identifier")
    return value


def _names(raw: dict[str, Any], key: str) -> Names | None:
    value = _strings(raw, key)
    if value is None:
        return None
    globs = tuple(sorted(item for item in value if "*" in item))
    if len(globs) > 200 or any(item.count("*") > MAX_STARS for item in globs):
        raise _bad(f"{key} has too many wildcards")
    return Names(value - set(globs), globs) if value else Names()


def _flag(raw: dict[str, Any], key: str) -> bool:
    return bool(_optional_flag(raw, key))


def _optional_flag(raw: dict[str, Any], key: str) -> bool | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise _bad(f"{key} is not a boolean")
    return value


def _limit(raw: dict[str, Any]) -> int | None:
    value = raw.get("limit")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad("limit is not a positive integer")
    return value


def _event_format(raw: dict[str, Any]) -> str:
    value = raw.get("event_format", "client")
    if value not in ("client", "federation"):
        raise _bad("event_format is neither client nor federation")
    return value


def _event_fields(raw: dict[str, Any]) -> tuple[tuple[str, ...], ...] | None:
    value = raw.get("event_fields")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or len(value) > 100:
        raise _bad("event_fields is not a short list of strings")
    return tuple(_dotted(item) for item in value)


def _dotted(path: str) -> tuple[str, ...]:
    """Split a dot-separated property path; ``\\.`` is a dot and ``\\\\`` a backslash within a name."""
    parts, current, escaped = [], [], False
    for character in path:
        if escaped:
            current.append(character if character in ".\\" else "\\" + character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ".":
            parts.append("".join(current))
            current = []
        else:
            current.append(character)
    parts.append("".join(current) + ("\\" if escaped else ""))
    return tuple(parts)


def pick_fields(event: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """The event with only the properties that the paths name; missing ones are left out."""
    picked: dict[str, Any] = {}
    for path in paths:
        source: Any = event
        for name in path:
            source = source.get(name, _ABSENT) if isinstance(source, dict) else _ABSENT
        if source is _ABSENT:
            continue
        target = picked
        for name in path[:-1]:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                break
        else:
            target[path[-1]] = source
    return picked


_ABSENT = object()
