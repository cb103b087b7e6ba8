"""Templates of member events from a resident server: what of them goes into the event that we sign.

Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking". Of a template only its place in the room's graph is
taken; the event is made anew from what we want it to say, so that nobody gets our signature under anything else.
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_event_id, is_valid_user_id, server_name_of
from federation.rules.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.room import MAX_DEPTH, MAX_PREV_EVENTS, Draft, Rooms

MAX_AUTH_EVENTS = 10
VOUCHER = "join_authorised_via_users_server"


class BadTemplate(MatrixError):
    """The resident server's template is not one of the event that was asked for."""

    def __init__(self, what: str) -> None:
        super().__init__(502, "M_UNKNOWN", f"The other server sent no usable template: {what}")


def version_of(template_version: str) -> RoomVersion:
    """The room version of a template. MatrixError 400 M_UNSUPPORTED_ROOM_VERSION for one that we lack."""
    version = ROOM_VERSIONS.get(template_version)
    if version is None:
        raise MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", "This server does not support the room's version")
    return version


def event_from(
    rooms: Rooms,
    template: Mapping[str, Any],
    version: RoomVersion,
    room_id: str,
    user_id: str,
    content: Mapping[str, Any],
) -> Event:
    """Our signed member event in the place that the template names. Raises BadTemplate.

    ``content`` is what the event is to say; of the template's content only the user who vouches for a restricted join
    is taken over.
    """
    expected = {"type": "m.room.member", "room_id": room_id, "sender": user_id, "state_key": user_id}
    for field, value in expected.items():
        if template.get(field) != value:
            raise BadTemplate(f"its {field} is another one")
    told = template.get("content")
    membership = content["membership"]
    if not isinstance(told, dict) or told.get("membership") != membership:
        raise BadTemplate("its membership is another one")
    whole = dict(content)
    whole.pop(VOUCHER, None)
    voucher = told.get(VOUCHER)
    if membership == "join" and version.restricted_join and voucher is not None:
        if not is_valid_user_id(voucher):
            raise BadTemplate("who vouches for the join is no user")
        whole[VOUCHER] = voucher
    depth = template.get("depth")
    if type(depth) is not int or not 0 <= depth <= version.max_depth:
        raise BadTemplate("it has no depth")
    return rooms.build(
        version,
        Draft(user_id, "m.room.member", whole, state_key=user_id),
        room_id=room_id,
        depth=min(depth, MAX_DEPTH),
        prev_events=_references(template, "prev_events", MAX_PREV_EVENTS, version),
        auth_events=_references(template, "auth_events", MAX_AUTH_EVENTS, version),
    )


def _references(template: Mapping[str, Any], field: str, limit: int, version: RoomVersion) -> list[Any]:
    """References to other events in the form of the room version, with nothing but ids (and hashes) in them."""
    given = template.get(field)
    if not isinstance(given, list) or not 0 < len(given) <= limit:
        raise BadTemplate(f"its {field} are not between 1 and {limit}")
    found: list[Any] = []
    for entry in given:
        if version.hashed_event_ids:
            if not is_valid_event_id(entry):
                raise BadTemplate(f"{field} has something else than event ids")
            found.append(entry)
            continue
        pair = isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], dict)
        sha256 = entry[1].get("sha256") if pair else None
        if not pair or not is_valid_event_id(entry[0]) or not isinstance(sha256, str):
            raise BadTemplate(f"{field} has something else than references")
        found.append([entry[0], {"sha256": sha256}])
    return found


def with_signatures_of(event: Event, answered: Any, server: str) -> Event:
    """The event with the signatures that ``server`` has put under it; MatrixError 502 when it has not.

    ``answered`` is the event as that server sent it back; of it nothing but the signatures is taken. They are
    yet to be verified.
    """
    signatures = answered.get("signatures") if isinstance(answered, dict) else None
    of_server = signatures.get(server) if isinstance(signatures, dict) else None
    if not isinstance(of_server, dict) or not of_server:
        raise MatrixError(502, "M_UNKNOWN", f"{server} has not signed the event")
    kept = {key: value for key, value in of_server.items() if isinstance(key, str) and isinstance(value, str)}
    signatures = event.pdu["signatures"]
    pdu = {**event.pdu, "signatures": {**signatures, server: {**signatures.get(server, {}), **kept}}}
    return Event.from_pdu(pdu, event.version, event_id=event.event_id)


def vouching_server(event: Event) -> str | None:
    """The other server whose signature a restricted join needs, None when it needs none."""
    voucher = event.content.get(VOUCHER)
    return server_name_of(voucher) if isinstance(voucher, str) else None
