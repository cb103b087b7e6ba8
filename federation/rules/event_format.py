"""The shape that a PDU must have in its room version before anything else looks at it.

Specification: room versions, "Event format"; Client-Server API, "Size limits". A PDU that fails is dropped.
"""

from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import MAX_ID_BYTES, is_valid_event_id, is_valid_user_id
from federation.rules.room_versions import RoomVersion

MAX_PDU_BYTES = 65536
MAX_AUTH_EVENTS = 10
MAX_PREV_EVENTS = 20
MAX_TIMESTAMP = 2**63 - 1


class EventFormatError(MatrixError):
    """A PDU that is not an event of its room version; answered 400 M_BAD_JSON."""

    def __init__(self, error: str) -> None:
        super().__init__(400, "M_BAD_JSON", error)


class NoContentHash(EventFormatError):
    """A PDU without a content hash: its signatures, whatever they are, do not cover what it says."""


class EventTooLarge(MatrixError):
    """An event, or one of its identifiers, over its limit; answered 413 M_TOO_LARGE."""

    def __init__(self, error: str) -> None:
        super().__init__(413, "M_TOO_LARGE", error)


def check_pdu_format(pdu: object, version: RoomVersion) -> None:
    """Check presence, type and size of every key that the protocol reads.

    Unknown keys are left alone: hashes cover them. Raises EventFormatError or EventTooLarge.
    """
    if not isinstance(pdu, dict):
        raise EventFormatError("An event is a JSON object")
    check_identifier("type", _string(pdu, "type"))
    check_identifier("sender", _string(pdu, "sender"))
    if not is_valid_user_id(pdu["sender"]):
        raise EventFormatError("'sender' is not a user ID")
    if "state_key" in pdu:
        check_identifier("state_key", _string(pdu, "state_key"))
    _check_room_id(pdu, version)
    if not isinstance(pdu.get("content"), dict):
        raise EventFormatError("'content' is not an object")
    _check_integers(pdu, version)
    _check_hashes(pdu)
    _check_signatures(pdu)
    _check_event_ids(pdu, "auth_events", MAX_AUTH_EVENTS, version)
    _check_event_ids(pdu, "prev_events", MAX_PREV_EVENTS, version)
    if not version.hashed_event_ids and not is_valid_event_id(_string(pdu, "event_id")):
        raise EventFormatError("'event_id' is not an event ID")


def check_identifier(key: str, text: str) -> None:
    """Hold a string of an event to 255 bytes of UTF-8. Raises EventTooLarge, EventFormatError."""
    if len(text) * 4 <= MAX_ID_BYTES:
        return
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise EventFormatError(f"'{key}' is not Unicode text") from None
    if length > MAX_ID_BYTES:
        raise EventTooLarge(f"'{key}' is longer than {MAX_ID_BYTES} bytes")


def check_size(encoded: bytes) -> None:
    """Hold an event in canonical JSON, signatures included, to 65,536 bytes. Raises EventTooLarge."""
    if len(encoded) > MAX_PDU_BYTES:
        raise EventTooLarge(f"The event is larger than {MAX_PDU_BYTES} bytes")


def _string(pdu: dict[str, Any], key: str) -> str:
    value = pdu.get(key)
    if not isinstance(value, str):
        raise EventFormatError(f"'{key}' is not a string")
    return value


def _check_room_id(pdu: dict[str, Any], version: RoomVersion) -> None:
    if version.room_id_is_create_hash and pdu["type"] == "m.room.create" and pdu.get("state_key") == "":
        return  # it has none; one that is there is for the auth rules to reject (room version 12, rule 1.2)
    room_id = _string(pdu, "room_id")
    check_identifier("room_id", room_id)
    # The opaque part is not held to its grammar: other servers accept it, and so do the rooms' histories.
    has_domain = ":" in room_id
    if room_id[:1] != "!" or len(room_id) < 2 or has_domain == version.room_id_is_create_hash:
        raise EventFormatError("'room_id' is not a room ID of this room version")


def _check_integers(pdu: dict[str, Any], version: RoomVersion) -> None:
    depth, timestamp = pdu.get("depth"), pdu.get("origin_server_ts")
    if type(depth) is not int or not 0 <= depth <= version.max_depth:
        raise EventFormatError("'depth' is not an integer of the allowed range")
    if type(timestamp) is not int or abs(timestamp) > MAX_TIMESTAMP:
        raise EventFormatError("'origin_server_ts' is not an integer of the allowed range")


def _check_hashes(pdu: dict[str, Any]) -> None:
    hashes = pdu.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise NoContentHash("'hashes' has no 'sha256'")


def _check_signatures(pdu: dict[str, Any]) -> None:
    signatures = pdu.get("signatures")
    if not isinstance(signatures, dict) or not all(isinstance(keys, dict) for keys in signatures.values()):
        raise EventFormatError("'signatures' is not an object of objects")


def _check_event_ids(pdu: dict[str, Any], key: str, most: int, version: RoomVersion) -> None:
    entries = pdu.get(key)
    if not isinstance(entries, list) or len(entries) > most:
        raise EventFormatError(f"'{key}' is not a list of at most {most} events")
    for entry in entries:
        if not version.hashed_event_ids:
            if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], dict):
                raise EventFormatError(f"'{key}' holds something else than pairs of event ID and hashes")
            entry = entry[0]
        if not isinstance(entry, str) or not entry.startswith("$"):
            raise EventFormatError(f"'{key}' holds something else than event IDs")
        check_identifier(key, entry)
