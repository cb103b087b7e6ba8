"""Invites by e-mail or phone number, once it is known whom they are for.

Client-Server API, "Third-party Invites". A pending one stands in the room's state under its token; whoever it was for
proves it by what an identity server has signed, which the auth rules check (`federation.rules.membership_auth`).
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from homeserver.rooms.room import Draft, Room


def pending_invite(room: Room, signed: Mapping[str, Any]) -> Event:
    """The pending invite that something was signed for. MatrixError 403 when there is none."""
    token = signed.get("token")
    pending = room.state("m.room.third_party_invite", token) if isinstance(token, str) else None
    if pending is None:
        raise MatrixError(403, "M_FORBIDDEN", "There is no such invitation")
    return pending


def redeemed(pending: Event, user_id: str, signed: Mapping[str, Any]) -> Draft:
    """The invite of a user that a pending one becomes, in the name of who gave it."""
    name = pending.content.get("display_name")
    content = {
        "membership": "invite",
        "third_party_invite": {"display_name": name if isinstance(name, str) else "", "signed": dict(signed)},
    }
    return Draft(pending.sender, "m.room.member", content, state_key=user_id)
