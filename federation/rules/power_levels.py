"""Power levels: who may do what, read from one event by the rules of its room version.

Specification: room versions, "Authorisation rules" and "Deprecated event content schemas"; Client-Server API,
``m.room.power_levels``. A ``PowerLevels`` depends on the create and the power levels event alone, so it can
be kept for as long as these two stay.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from federation.rules.event import Event
from federation.rules.room_versions import RoomVersion

MAX_REMEMBERED = 64
"""Pairs of events whose levels are remembered: many events in a row are judged by the same two."""

INFINITE = math.inf
"""The level of a creator where the room version sets creators above every number."""

DEFAULT_ACTIONS: Mapping[str, int] = {"ban": 50, "kick": 50, "redact": 50, "invite": 0}
DEFAULT_NOTIFICATION = 50
LEVEL_KEYS = ("users_default", "events_default", "state_default", "ban", "redact", "kick", "invite")
"""The keys of the event's content that hold one level each."""

_GREATEST = 2**1024 - 2**970  # the greatest binary64
_INTEGER_TEXT = re.compile(r"\s*([+-]?[0-9]{1,310})\s*", re.ASCII)


class NotALevel(ValueError):
    """A value that is no power level in this room version."""


def read_level(value: object, version: RoomVersion) -> int:
    """The power level that a JSON value stands for. Raises NotALevel.

    Booleans never count as integers. Strings and floats stand for levels only in older room versions; floats
    are cut at the decimal point.
    """
    if type(value) is int:
        level = value
    elif version.string_power_levels and isinstance(value, str):
        match = _INTEGER_TEXT.fullmatch(value)
        if match is None:
            raise NotALevel(f"{value!r:.40} is not an integer")
        level = int(match[1])
    elif version.float_power_levels and isinstance(value, float) and math.isfinite(value):
        level = int(value)
    else:
        raise NotALevel(f"{value!r:.40} is not an integer")
    if abs(level) > _GREATEST:
        raise NotALevel("too great for a power level")
    return level


def creator_of(create: Event) -> str | None:
    """The user whom the create event names as creator: its sender, in older rooms ``content.creator``."""
    if create.version.creator_is_sender:
        return create.sender
    creator = create.content.get("creator")
    return creator if isinstance(creator, str) else None


def privileged_creators(create: Event) -> frozenset[str]:
    """The users above every level: empty in room versions that know no such thing."""
    if not create.version.privileged_creators:
        return frozenset()
    more = create.content.get("additional_creators")
    others = (user for user in more if isinstance(user, str)) if isinstance(more, list) else ()
    return frozenset((create.sender, *others))


class PowerLevels:
    """The levels of a room, all defaults filled in. Values that are no levels count as absent."""

    __slots__ = (
        "_actions",
        "_events",
        "_events_default",
        "_notifications",
        "_state_default",
        "_users",
        "_users_default",
        "creators",
    )

    def __init__(self, content: Mapping[str, Any], version: RoomVersion, creators: frozenset[str]) -> None:
        self.creators = creators
        self._users = _levels(content.get("users"), version)
        self._events = _levels(content.get("events"), version)
        self._notifications = _levels(content.get("notifications"), version)
        self._users_default = _level(content, "users_default", 0, version)
        self._events_default = _level(content, "events_default", 0, version)
        self._state_default = _level(content, "state_default", 50, version)
        self._actions = {
            action: _level(content, action, default, version) for action, default in DEFAULT_ACTIONS.items()
        }

    @classmethod
    @lru_cache(maxsize=MAX_REMEMBERED)
    def of(cls, create: Event, power_levels: Event | None, version: RoomVersion) -> "PowerLevels":
        """The levels that these two events give.

        Without a power levels event the creator has 100 and everybody else 0; other levels have their defaults.
        """
        creators = privileged_creators(create)
        if power_levels is not None:
            return cls(power_levels.content, version, creators)
        creator = creator_of(create)
        users = {creator: 100} if creator is not None and not creators else {}
        return cls({"users": users}, version, creators)

    def user(self, user_id: str) -> int | float:
        """The level of a user; ``INFINITE`` for a privileged creator."""
        if user_id in self.creators:
            return INFINITE
        return self._users.get(user_id, self._users_default)

    def event(self, type_: str, is_state: bool) -> int:
        """The level needed to send an event of a type."""
        level = self._events.get(type_)
        if level is not None:
            return level
        return self._state_default if is_state else self._events_default

    def action(self, name: str) -> int:
        """The level needed to ``ban``, ``kick``, ``redact`` (others' events) or ``invite``."""
        return self._actions[name]

    def notification(self, key: str) -> int:
        """The level needed to notify everybody at once; ``room`` is the only key in use."""
        return self._notifications.get(key, DEFAULT_NOTIFICATION)

    def users(self) -> Mapping[str, int]:
        """The levels given to users by name. Not to be changed."""
        return self._users

    @property
    def users_default(self) -> int:
        """The level of users who are not named."""
        return self._users_default


def _level(content: Mapping[str, Any], key: str, default: int, version: RoomVersion) -> int:
    value = content.get(key)
    if value is None:
        return default
    try:
        return read_level(value, version)
    except NotALevel:
        return default


def _levels(values: object, version: RoomVersion) -> Mapping[str, int]:
    if not isinstance(values, dict):
        return {}
    levels = {}
    for key, value in values.items():
        try:
            levels[key] = read_level(value, version)
        except NotALevel:
            continue
    return levels
