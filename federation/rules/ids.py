"""Identifiers: users, rooms, aliases, events, server names, media.

Specification: Appendices, "Identifier Grammar". Lengths are counted in bytes of UTF-8. What servers must
accept in history (any localpart without ``:`` and NUL) is wider than what a server may give to a new user
(``homeserver/accounts/user_names.py``).
"""

import re
from typing import NamedTuple

from federation.rules.endpoint import parse_server_name

MAX_ID_BYTES = 255

_HASH_ID = re.compile(r"[A-Za-z0-9+/_-]{43}", re.ASCII)
_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]{1,247}", re.ASCII)


class MxcUri(NamedTuple):
    """The two parts of an ``mxc://`` address."""

    server_name: str
    media_id: str


def fits(text: str) -> bool:
    """Whether an identifier keeps to 255 bytes and can be written as UTF-8 at all."""
    if len(text) * 4 <= MAX_ID_BYTES and text.isascii():
        return True
    try:
        return len(text.encode("utf-8")) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def is_valid_server_name(name: object) -> bool:
    """Whether this is a server name (DNS name or IP literal, optional port)."""
    return isinstance(name, str) and parse_server_name(name) is not None


def is_valid_user_id(user_id: object) -> bool:
    """Whether servers have to accept this user id, historical localparts included."""
    return _is_sigil_id(user_id, "@")


def is_valid_room_alias(alias: object) -> bool:
    """Whether this is a room alias, ``#localpart:server``."""
    return _is_sigil_id(alias, "#")


def is_valid_room_id(room_id: object) -> bool:
    """Whether this is a room id of any room version: with a domain, or the hash of a create event."""
    if isinstance(room_id, str) and ":" not in room_id:
        return room_id[:1] == "!" and _HASH_ID.fullmatch(room_id, 1) is not None
    return _is_sigil_id(room_id, "!")


def is_valid_event_id(event_id: object) -> bool:
    """Whether this is an event id of any room version: with a domain, or a reference hash."""
    if isinstance(event_id, str) and ":" not in event_id:
        return event_id[:1] == "$" and _HASH_ID.fullmatch(event_id, 1) is not None
    return _is_sigil_id(event_id, "$")


def is_valid_key_id(key_id: object) -> bool:
    """Whether this names an Ed25519 server key: ``ed25519:`` and a version of ``[A-Za-z0-9_]``."""
    return isinstance(key_id, str) and _KEY_ID.fullmatch(key_id) is not None


def parse_mxc(uri: object) -> MxcUri | None:
    """Split ``mxc://server/media`` into its parts, or None when it is not one.

    Both parts are checked so that they can safely become keys and file names.
    """
    if not isinstance(uri, str) or not uri.startswith("mxc://"):
        return None
    server_name, slash, media_id = uri[6:].partition("/")
    if not slash or not is_valid_server_name(server_name) or not _MEDIA_ID.fullmatch(media_id):
        return None
    return MxcUri(server_name, media_id)


def server_name_of(identifier: str) -> str:
    """The server name in an identifier: all behind its first colon, "" when it has none.

    For identifiers that were checked before; nothing is validated.
    """
    return identifier.partition(":")[2]


def _is_sigil_id(text: object, sigil: str) -> bool:
    if not isinstance(text, str) or text[:1] != sigil or not fits(text):
        return False
    localpart, colon, server_name = text[1:].partition(":")
    return bool(colon) and "\0" not in localpart and parse_server_name(server_name) is not None
