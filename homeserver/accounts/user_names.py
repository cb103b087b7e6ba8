"""User names and device IDs: what may become an account here. Pure.

Appendices, "User Identifiers": a localpart has ``a-z 0-9 . _ = - / +`` and the whole ID at most 255 bytes.
"""

import re

from federation.rules.errors import MatrixError

_LOCALPART = re.compile(r"[a-z0-9._=\-/+]+", re.ASCII)
_ONLY_DIGITS = re.compile(r"[0-9]+", re.ASCII)
MAX_USER_ID_BYTES = 255
MAX_DEVICE_ID_BYTES = 255
MAX_DISPLAY_NAME_BYTES = 512


def localpart_for(username: str, server_name: str, *, for_people: bool = True) -> str:
    """The localpart that a wished-for name becomes: capitals are lowered, anything else outside the grammar refused.

    ``for_people`` also refuses names of digits alone (they are given to guests) and names with a leading
    underscore (kept for application services). Raises MatrixError 400 M_INVALID_USERNAME.
    """
    localpart = username.lower() if username.isascii() else username
    if not _LOCALPART.fullmatch(localpart):
        raise _invalid("User names are made of a-z, 0-9 and . _ = - / +")
    if len(localpart) + len(server_name) + 2 > MAX_USER_ID_BYTES:
        raise _invalid(f"User IDs are limited to {MAX_USER_ID_BYTES} bytes")
    if for_people and localpart.startswith("_"):
        raise _invalid("User names must not begin with an underscore")
    if for_people and _ONLY_DIGITS.fullmatch(localpart):
        raise _invalid("User names of digits alone are kept for guests")
    return localpart


def full_user_id(user: str, server_name: str) -> str:
    """The user ID meant by ``user``, which is a localpart or a whole ID. No check: the result may not exist."""
    return user if user.startswith("@") else f"@{user}:{server_name}"


def is_local(user_id: str, server_name: str) -> bool:
    """True when the ID has the form of a user of this server (it need not exist)."""
    return user_id.startswith("@") and user_id.partition(":")[2] == server_name


def check_user_id(user_id: str) -> None:
    """Refuse what cannot be a user ID at all, historical forms allowed. Raises MatrixError 400 M_INVALID_PARAM."""
    localpart, colon, server = user_id[1:].partition(":")
    if (
        not user_id.startswith("@")
        or not colon
        or not server
        or len(user_id.encode("utf-8", "surrogatepass")) > MAX_USER_ID_BYTES
        or any(char <= " " or char == "\x7f" for char in localpart + server)
    ):
        raise MatrixError(400, "M_INVALID_PARAM", "That is not a user ID")


def check_device_id(device_id: str) -> None:
    """Refuse device IDs that are empty, longer than 255 bytes or hold control characters (400 M_INVALID_PARAM)."""
    size = len(device_id.encode("utf-8", "surrogatepass"))
    if not 0 < size <= MAX_DEVICE_ID_BYTES or any(char < " " or char == "\x7f" for char in device_id):
        raise MatrixError(400, "M_INVALID_PARAM", f"Device IDs have 1 to {MAX_DEVICE_ID_BYTES} bytes, all visible")


def check_device_name(name: str | None) -> None:
    """Refuse device names beyond 512 bytes or with NUL (400 M_INVALID_PARAM)."""
    if name is not None and (len(name.encode("utf-8", "surrogatepass")) > MAX_DISPLAY_NAME_BYTES or "\0" in name):
        raise MatrixError(400, "M_INVALID_PARAM", f"Device names have at most {MAX_DISPLAY_NAME_BYTES} bytes")


def _invalid(sentence: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_USERNAME", sentence)
