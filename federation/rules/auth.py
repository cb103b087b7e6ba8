"""The authorisation rules: may this event stand in a room with that state?

Specification: room versions, "Authorisation rules"; Server-Server API, "Auth events selection". On receipt of
an event call ``check_auth_event_list`` and ``check_auth`` with the state its auth events make (failure:
rejected), ``check_auth`` with the state before the event (rejected) and with the current state (soft failed).

``auth_state`` always carries the create event, also in room versions where ``auth_events`` do not cite it.
Signatures are no matter of these functions; see ``checks``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from federation.rules.auth_events import (
    CREATE,
    POWER_LEVELS,
    AuthError,
    AuthState,
    auth_types_for,
    check_auth_event_list,
)
from federation.rules.event import Event
from federation.rules.ids import is_valid_user_id, server_name_of
from federation.rules.membership_auth import check_membership
from federation.rules.power_levels import LEVEL_KEYS, NotALevel, PowerLevels, privileged_creators, read_level
from federation.rules.room_versions import ROOM_VERSIONS, RoomVersion

__all__ = [
    "AuthError",
    "AuthState",
    "auth_types_for",
    "check_auth",
    "check_auth_event_list",
    "check_citations",
    "check_create",
]


def check_auth(event: Event, auth_state: AuthState, power_levels: PowerLevels | None = None) -> None:
    """Check an event against a room state. Raises AuthError.

    ``auth_state`` needs only the entries that ``auth_types_for`` names, and the create event.
    ``power_levels`` saves reading them again; it has to be the one of this state.
    """
    type_ = event.type
    if type_ == "m.room.create":
        check_create(event)
        return
    version = event.version
    create = auth_state.get(CREATE)
    if create is None:
        raise AuthError("There is no create event")
    if create.room_id != event.room_id:
        raise AuthError("The event belongs to another room")
    sender = event.sender
    if create.content.get("m.federate") is False and server_name_of(sender) != server_name_of(create.sender):
        raise AuthError("This room does not federate")
    if version.aliases_rule and type_ == "m.room.aliases":
        _check_aliases(event)
        return
    if power_levels is None:
        power_levels = PowerLevels.of(create, auth_state.get(POWER_LEVELS), version)
    if type_ == "m.room.member":
        check_membership(event, auth_state, create, power_levels)
        return
    member = auth_state.get(("m.room.member", sender))
    if member is None or member.content.get("membership") != "join":
        raise AuthError("The sender is not in the room")
    level = power_levels.user(sender)
    if type_ == "m.room.third_party_invite":
        if level < power_levels.action("invite"):
            raise AuthError("The sender may not invite")
        return
    _check_power(event, level, power_levels)
    if type_ == "m.room.power_levels":
        _check_power_levels(event, auth_state.get(POWER_LEVELS), create, level)
    elif type_ == "m.room.redaction" and version.redaction_rule:
        _check_redaction(event, level, power_levels)


def check_citations(
    event: Event, cited: Iterable[Event], create: Event | None, is_rejected: Callable[[str], bool] | None = None
) -> None:
    """Check an event by what it cites alone: the list as such, then the state that it makes. Raises AuthError.

    ``cited`` are all the events that ``event.auth_event_ids`` names; ``create`` is the room's create event, for room
    versions that do not cite it.
    """
    cited = list(cited)
    check_auth_event_list(event, cited, is_rejected)
    state = {(found.type, found.state_key or ""): found for found in cited}
    if create is not None and event.version.room_id_is_create_hash:
        state[CREATE] = create
    check_auth(event, state)


def check_create(event: Event) -> None:
    """Rule 1: may this event found a room? Raises AuthError."""
    version = event.version
    if event.prev_event_ids:
        raise AuthError("A create event has nothing before it")
    if version.room_id_is_create_hash:
        if "room_id" in event.pdu:
            raise AuthError("A create event of this room version carries no room ID")
    elif server_name_of(event.room_id) != server_name_of(event.sender):
        raise AuthError("The room ID is of another server than the creator")
    declared = event.content.get("room_version", "1")
    if not isinstance(declared, str) or declared not in ROOM_VERSIONS:
        raise AuthError("The room version is unknown")
    if not version.creator_is_sender and "creator" not in event.content:
        raise AuthError("The create event names no creator")
    if version.privileged_creators and "additional_creators" in event.content:
        more = event.content["additional_creators"]
        if not isinstance(more, list) or not all(is_valid_user_id(user) for user in more):
            raise AuthError("'additional_creators' is not a list of user IDs")


def _check_aliases(event: Event) -> None:
    if event.state_key is None or event.state_key != server_name_of(event.sender):
        raise AuthError("Aliases are published by their own server alone")


def _check_power(event: Event, level: int | float, power_levels: PowerLevels) -> None:
    state_key = event.state_key
    if level < power_levels.event(event.type, state_key is not None):
        raise AuthError(f"The sender's power does not reach for {event.type}")
    if state_key is not None and state_key.startswith("@") and state_key != event.sender:
        raise AuthError("State under a user ID is for that user to set")


def _check_redaction(event: Event, level: int | float, power_levels: PowerLevels) -> None:
    if level >= power_levels.action("redact"):
        return
    if event.redacts is None or server_name_of(event.redacts) != server_name_of(event.event_id):
        raise AuthError("The sender may not redact events of other servers")


def _check_power_levels(event: Event, current: Event | None, create: Event, level: int | float) -> None:
    version = event.version
    new = _parse_power_levels(event.content, version)
    users = new["users"]
    if not all(is_valid_user_id(user) for user in users):
        raise AuthError("'users' names something else than users")
    if not privileged_creators(create).isdisjoint(users):
        raise AuthError("Creators have no entry in the power levels")
    if current is None:
        return
    old = _parse_power_levels(current.content, version, lenient=True)
    for name, levels in new.items():
        _check_changes(old[name], levels, level, event.sender if name == "users" else None)


def _check_changes(
    old: Mapping[str, int], new: Mapping[str, int], level: int | float, own_entry: str | None
) -> None:
    """Nobody changes what stands above them, nor raises anything above themselves.

    ``own_entry`` is given for the entries of users: there, what stands level with the sender is out of reach
    too, the sender's own entry excepted.
    """
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if after is not None and after > level:
            raise AuthError(f"The sender may not give {key} a level above their own")
        if before is None or key == own_entry:
            continue
        if before > level or (own_entry is not None and before == level):
            raise AuthError(f"The sender may not change the level of {key}")


def _parse_power_levels(
    content: Mapping[str, Any], version: RoomVersion, lenient: bool = False
) -> dict[str, dict[str, int]]:
    """All levels of a power levels event as integers. ``lenient`` skips what is none; else AuthError.

    Before every level had to be a JSON integer, null stood for a level that is not set.
    """
    single = {key: content[key] for key in LEVEL_KEYS if key in content}
    parsed: dict[str, Any] = {"levels": single}
    for name in ("events", "users", "notifications") if version.limit_notifications else ("events", "users"):
        parsed[name] = content.get(name, {})
    return {name: _parse_levels(name, values, version, lenient) for name, values in parsed.items()}


def _parse_levels(name: str, values: object, version: RoomVersion, lenient: bool) -> dict[str, int]:
    null_is_absent = not version.integer_power_levels and name != "users"
    if values is None and null_is_absent:
        return {}
    if not isinstance(values, dict):
        if lenient:
            return {}
        raise AuthError(f"'{name}' of the power levels is not an object")
    levels: dict[str, int] = {}
    for key, value in values.items():
        if value is None and null_is_absent:
            continue
        try:
            levels[key] = read_level(value, version)
        except NotALevel as error:
            if not lenient:
                raise AuthError(f"The power level of {key} is wrong: {error}") from None
    return levels
