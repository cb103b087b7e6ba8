"""The rules for memberships: one function for each value that ``membership`` can take.

Specification: room versions, "Authorisation rules", the rule for ``m.room.member``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from federation.rules.auth_events import JOIN_RULES, AuthError, AuthState, third_party_token
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.hashes import decode_base64
from federation.rules.ids import is_valid_user_id
from federation.rules.power_levels import PowerLevels, creator_of
from federation.rules.signing import bytes_to_sign, signature_is_valid

_MAX_INVITE_KEYS = 20
_MAX_INVITE_SIGNATURES = 20


class _Change(NamedTuple):
    """A membership that is to change, with what the rules look at. None: no membership yet."""

    event: Event
    state: AuthState
    create: Event
    levels: PowerLevels
    target: str
    sender_membership: str | None
    target_membership: str | None

    @property
    def concerns_sender(self) -> bool:
        return self.event.sender == self.target


def check_membership(event: Event, auth_state: AuthState, create: Event, levels: PowerLevels) -> None:
    """Check an ``m.room.member`` event against a room state. Raises AuthError.

    That a user's server signed for ``join_authorised_via_users_server`` is checked with the other signatures.
    """
    target = event.state_key
    if target is None or not is_valid_user_id(target):
        raise AuthError("A membership is about a user")
    membership = event.content.get("membership")
    check = _CHECKS.get(membership) if isinstance(membership, str) else None
    if check is None or (membership == "knock" and not event.version.knock):
        raise AuthError("The membership is unknown")
    sender_membership = membership_of(auth_state, event.sender)
    target_membership = sender_membership if target == event.sender else membership_of(auth_state, target)
    check(_Change(event, auth_state, create, levels, target, sender_membership, target_membership))


def membership_of(auth_state: AuthState, user_id: str) -> str | None:
    """The membership of a user in a state; None when there is none."""
    member = auth_state.get(("m.room.member", user_id))
    membership = member.content.get("membership") if member is not None else None
    return membership if isinstance(membership, str) else None


def join_rule_of(auth_state: AuthState) -> str:
    """The join rule in a state; ``invite`` when nothing is said."""
    event = auth_state.get(JOIN_RULES)
    rule = event.content.get("join_rule") if event is not None else None
    return rule if isinstance(rule, str) else "invite"


def _check_join(change: _Change) -> None:
    event, version = change.event, change.event.version
    if event.prev_event_ids == (change.create.event_id,) and change.target == creator_of(change.create):
        return
    if not change.concerns_sender:
        raise AuthError("Nobody joins for somebody else")
    if change.sender_membership == "ban":
        raise AuthError("The user is banned from the room")
    rule = join_rule_of(change.state)
    if rule == "public":
        return
    restricted = (rule == "restricted" and version.restricted_join) or (
        rule == "knock_restricted" and version.knock_restricted
    )
    if not (restricted or rule == "invite" or (rule == "knock" and version.knock)):
        raise AuthError("The room's join rule lets nobody in")
    if change.sender_membership in ("join", "invite"):
        return
    if not restricted:
        raise AuthError("The user is not invited to the room")
    _check_authoriser(change)


def _check_authoriser(change: _Change) -> None:
    """A restricted join needs a member who could have invited the user to vouch for it."""
    authoriser = change.event.content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        raise AuthError("Nobody has authorised the restricted join")
    if membership_of(change.state, authoriser) != "join":
        raise AuthError("The user who authorised the join is not in the room")
    if change.levels.user(authoriser) < change.levels.action("invite"):
        raise AuthError("The user who authorised the join may not invite")


def _check_invite(change: _Change) -> None:
    if "third_party_invite" in change.event.content:
        _check_third_party_invite(change)
        return
    if change.sender_membership != "join":
        raise AuthError("The sender is not in the room")
    if change.target_membership in ("join", "ban"):
        raise AuthError("The user is already in the room or banned from it")
    if change.levels.user(change.event.sender) < change.levels.action("invite"):
        raise AuthError("The sender may not invite")


def _check_third_party_invite(change: _Change) -> None:
    if change.target_membership == "ban":
        raise AuthError("The user is banned from the room")
    content = change.event.content
    token = third_party_token(content)
    if token is None:
        raise AuthError("The third-party invite is not signed for a token")
    signed = content["third_party_invite"]["signed"]
    if signed.get("mxid") != change.target:
        raise AuthError("The third-party invite is for another user")
    invite = change.state.get(("m.room.third_party_invite", token))
    if invite is None or invite.sender != change.event.sender:
        raise AuthError("The sender gave no such third-party invite")
    if not keys_that_signed(signed, invite.content):
        raise AuthError("The third-party invite is not signed with one of its keys")


class InviteKey(NamedTuple):
    """A key of a third-party invite: as it is written there, its 32 bytes, and where to ask whether it is still good."""

    text: str
    key: bytes
    validity_url: str | None


def keys_that_signed(signed: Mapping[str, Any], invite: Mapping[str, Any]) -> list[InviteKey]:
    """The keys of a third-party invite with which somebody has signed for whom it is; none when nobody has."""
    signatures = signed.get("signatures")
    if not isinstance(signatures, dict):
        return []
    try:
        message = bytes_to_sign(signed)
    except MatrixError:
        return []
    texts = [
        text
        for of_server in signatures.values()
        if isinstance(of_server, dict)
        for key_id, text in of_server.items()
        if key_id.startswith("ed25519:")
    ][:_MAX_INVITE_SIGNATURES]
    return [one for one in _invite_keys(invite) if any(signature_is_valid(message, text, one.key) for text in texts)]


def _invite_keys(invite: Mapping[str, Any]) -> list[InviteKey]:
    """The public keys of a third-party invite: ``public_key``, and those in ``public_keys``."""
    listed = invite.get("public_keys")
    entries = [invite, *(listed if isinstance(listed, list) else ())]
    keys = []
    for entry in entries[:_MAX_INVITE_KEYS]:
        text = entry.get("public_key") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            continue
        url = entry.get("key_validity_url")
        try:
            key = decode_base64(text.replace("-", "+").replace("_", "/"))
        except ValueError:
            continue
        keys.append(InviteKey(text, key, url if isinstance(url, str) else None))
    return keys


def _check_leave(change: _Change) -> None:
    event, levels = change.event, change.levels
    if change.concerns_sender:
        leavable = ("invite", "join", "knock") if event.version.knock else ("invite", "join")
        if change.sender_membership not in leavable:
            raise AuthError("The user is not in the room")
        return
    if change.sender_membership != "join":
        raise AuthError("The sender is not in the room")
    level = levels.user(event.sender)
    if change.target_membership == "ban" and level < levels.action("ban"):
        raise AuthError("The sender may not lift bans")
    if level < levels.action("kick") or levels.user(change.target) >= level:
        raise AuthError("The sender may not kick this user")


def _check_ban(change: _Change) -> None:
    if change.sender_membership != "join":
        raise AuthError("The sender is not in the room")
    level = change.levels.user(change.event.sender)
    if level < change.levels.action("ban") or change.levels.user(change.target) >= level:
        raise AuthError("The sender may not ban this user")


def _check_knock(change: _Change) -> None:
    rule = join_rule_of(change.state)
    if rule != "knock" and not (rule == "knock_restricted" and change.event.version.knock_restricted):
        raise AuthError("Nobody may knock on this room")
    if not change.concerns_sender:
        raise AuthError("Nobody knocks for somebody else")
    if change.sender_membership in ("ban", "invite", "join"):
        raise AuthError("The user is in the room, invited to it or banned from it")


_CHECKS: Mapping[str, Callable[[_Change], None]] = {
    "join": _check_join,
    "invite": _check_invite,
    "leave": _check_leave,
    "ban": _check_ban,
    "knock": _check_knock,
}
