"""Which events give another its right to stand, and the rules about citing them.

Specification: Server-Server API, "Auth events selection"; room versions, "Authorisation rules", the rule that
considers the event's ``auth_events``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.room_versions import RoomVersion

AuthState = Mapping[tuple[str, str], Event]
"""Entries of a room state by type and state key."""

CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


class AuthError(MatrixError):
    """The rules do not allow the event; answered 403 M_FORBIDDEN."""

    def __init__(self, error: str) -> None:
        super().__init__(403, "M_FORBIDDEN", error)


def auth_types_for(
    type_: str, state_key: str | None, sender: str, content: Mapping[str, Any], version: RoomVersion
) -> list[tuple[str, str]]:
    """Which entries of the room state give an event its right: the keys of its ``auth_events``.

    The keys come without repetition, create event first where it is cited. Empty for the create event itself.
    """
    if type_ == "m.room.create":
        return []
    keys = [POWER_LEVELS, ("m.room.member", sender)]
    if not version.room_id_is_create_hash:
        keys.insert(0, CREATE)
    if type_ == "m.room.member" and state_key is not None:
        _add_membership_types(keys, state_key, content, version)
    return keys


def _add_membership_types(
    keys: list[tuple[str, str]], state_key: str, content: Mapping[str, Any], version: RoomVersion
) -> None:
    target = ("m.room.member", state_key)
    if target not in keys:
        keys.append(target)
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        keys.append(JOIN_RULES)
    if membership == "invite":
        token = third_party_token(content)
        if token is not None:
            keys.append(("m.room.third_party_invite", token))
    if membership == "join" and version.restricted_join:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str) and ("m.room.member", authoriser) not in keys:
            keys.append(("m.room.member", authoriser))


def third_party_token(content: Mapping[str, Any]) -> str | None:
    """The token of the third-party invite that a membership redeems, if it has one."""
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def check_auth_event_list(
    event: Event, auth_events: Iterable[Event], is_rejected: Callable[[str], bool] | None = None
) -> None:
    """The rules about ``auth_events`` as such: what an event cites, whatever the state. Raises AuthError.

    ``auth_events`` are the events that ``event.auth_event_ids`` names, all of them; ``is_rejected`` tells
    whether one of them was rejected.
    """
    if event.type == "m.room.create":
        if event.auth_event_ids:
            raise AuthError("A create event cites no auth events")
        return
    if len(set(event.auth_event_ids)) != len(event.auth_event_ids):
        raise AuthError("An auth event is cited twice")
    wanted = auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)
    seen: set[tuple[str, str | None]] = set()
    for cited in auth_events:
        if cited.key in seen:
            raise AuthError(f"Two auth events for {cited.key}")
        if cited.key not in wanted:
            raise AuthError(f"An auth event for {cited.key} has no bearing on this event")
        if is_rejected is not None and is_rejected(cited.event_id):
            raise AuthError(f"The auth event {cited.event_id} was rejected")
        if cited.room_id != event.room_id:
            raise AuthError("An auth event belongs to another room")
        seen.add(cited.key)
    if not event.version.room_id_is_create_hash and CREATE not in seen:
        raise AuthError("The auth events lack the create event")
