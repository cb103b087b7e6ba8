"""What to check about a PDU from another server, step by step, before the auth rules see it.

Specification: Server-Server API, "Checks performed on receipt of a PDU" and "Validating hashes and signatures
on received events". In this order:

1. ``Event.from_pdu``: format and size. Failure: dropped.
2. ``required_signatures`` names the servers whose keys to get; ``check_signatures``. Failure: dropped.
3. ``verified_or_redacted``: a wrong content hash leaves the redacted event to go on with.
4. to 6. ``auth.check_auth_event_list`` and ``auth.check_auth``: rejected or soft failed.
"""

from collections.abc import Collection, Mapping

from nacl.signing import VerifyKey

from federation.rules.event import Event
from federation.rules.hashes import decode_base64
from federation.rules.ids import is_valid_user_id, server_name_of
from federation.rules.redaction import redact
from federation.rules.signing import SignatureError, verify_signatures

SEVEN_DAYS_MS = 7 * 24 * 60 * 60 * 1000


def required_signatures(event: Event) -> set[str]:
    """The servers that must have signed an event.

    The sender's, unless the event redeems a third-party invite (whoever redeems it signs); in room versions
    1 and 2 the server in the event id; for a restricted join the server of the user who authorised it.
    """
    servers = set()
    if not _redeems_third_party_invite(event):
        servers.add(server_name_of(event.sender))
    if event.version.event_id_domain_signs:
        servers.add(server_name_of(event.event_id))
    if event.version.restricted_join and event.type == "m.room.member":
        authoriser = event.content.get("join_authorised_via_users_server")
        if event.content.get("membership") == "join" and authoriser is not None:
            if not is_valid_user_id(authoriser):
                raise SignatureError("'join_authorised_via_users_server' is not a user ID")
            servers.add(server_name_of(authoriser))
    return servers


def check_signatures(
    event: Event, keys: Mapping[str, Mapping[str, bytes | VerifyKey]], servers: Collection[str] | None = None
) -> None:
    """Check that every required server has signed. Raises SignatureError.

    ``keys`` has the verify keys by server and key id; only such as were valid at ``origin_server_ts``
    where the room version asks for that. Signatures with other keys are skipped. ``servers`` are the
    ``required_signatures``, for who has them already.
    """
    signatures = event.pdu.get("signatures")
    for server_name in required_signatures(event) if servers is None else servers:
        verify_signatures(event.signed_bytes, signatures, server_name, keys.get(server_name, {}))


def content_hash_is_right(event: Event) -> bool:
    """Whether the event's ``hashes`` fit what it says."""
    claimed = event.pdu["hashes"].get("sha256")
    try:
        return decode_base64(claimed) == event.content_digest
    except ValueError:
        return False


def verified_or_redacted(event: Event) -> Event:
    """The event itself when its content hash is right, else its redacted form, which has the same id."""
    return event if content_hash_is_right(event) else redacted_event(event)


def redacted_event(event: Event) -> Event:
    """The event as redaction leaves it, with the same id."""
    return Event.from_pdu(redact(event.pdu, event.version), event.version, event_id=event.event_id)


def may_apply_redaction(redaction: Event, target: Event, sender_level: int | float, redact_level: int) -> bool:
    """Whether a redaction takes effect (room version 3, "Handling redactions").

    Never across rooms or on itself. The levels are those at the redaction. In room versions 1 and 2 it is the
    domains of the event ids that count, as in their auth rule.
    """
    if redaction.redacts != target.event_id or redaction.room_id != target.room_id:
        return False
    if redaction.event_id == target.event_id:
        return False
    if sender_level >= redact_level:
        return True
    if redaction.version.redaction_rule:
        return server_name_of(redaction.event_id) == server_name_of(target.event_id)
    return server_name_of(redaction.sender) == server_name_of(target.sender)


def _redeems_third_party_invite(event: Event) -> bool:
    if event.type != "m.room.member" or event.content.get("membership") != "invite":
        return False
    return "third_party_invite" in event.content
