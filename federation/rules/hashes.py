"""Content hash, reference hash and event ids.

Specification: Server-Server API, "Signing Events"; room versions, "Event IDs".
"""

from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as Base64Error
from hashlib import sha256
from typing import Any

from federation.rules import canonical_json
from federation.rules.redaction import redact
from federation.rules.room_versions import EventIdFormat, RoomVersion


def encode_base64(data: bytes) -> str:
    """Unpadded base64."""
    return b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64(text: str) -> bytes:
    """Bytes of base64, with or without padding. Raises ValueError."""
    try:
        bare = text.encode("ascii").rstrip(b"=")
        return b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except (Base64Error, UnicodeEncodeError) as error:
        raise ValueError(f"not base64: {error}") from None


def encode_event(value: Any, version: RoomVersion) -> bytes:
    """Canonical JSON by the room version's rules. Raises MatrixError 400 M_BAD_JSON."""
    return canonical_json.encode(value) if version.strict_canonical_json else canonical_json.encode_lax(value)


def content_hash(pdu: dict[str, Any], version: RoomVersion) -> bytes:
    """SHA-256 over the whole event without ``unsigned``, ``signatures`` and ``hashes``."""
    bare = {key: value for key, value in pdu.items() if key not in ("unsigned", "signatures", "hashes")}
    return sha256(encode_event(bare, version)).digest()


def reference_hash(pdu: dict[str, Any], version: RoomVersion) -> bytes:
    """SHA-256 over the redacted event without signatures: what an event is known by."""
    bare = redact(pdu, version)
    bare.pop("signatures", None)
    return sha256(encode_event(bare, version)).digest()


def event_id_of_hash(digest: bytes, version: RoomVersion) -> str:
    """The event id that a reference hash gives, in room versions that take it from the hash."""
    if version.event_id_format is EventIdFormat.URL_SAFE:
        return "$" + urlsafe_b64encode(digest)[:43].decode("ascii")
    return "$" + b64encode(digest)[:43].decode("ascii")


def event_id(pdu: dict[str, Any], version: RoomVersion) -> str:
    """The id of an event: its own key in room versions 1 and 2, later its reference hash."""
    if version.event_id_format is EventIdFormat.DOMAIN:
        return str(pdu["event_id"])
    return event_id_of_hash(reference_hash(pdu, version), version)
