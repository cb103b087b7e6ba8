"""The shapes of uploaded keys. Unknown fields are kept: they are part of what is signed."""

from typing import Any

import msgspec
import orjson

from federation.rules.errors import MatrixError
from storage.tables.one_time_keys import NamedKey

MAX_KEYS_PER_UPLOAD = 1000
MAX_KEY_BYTES = 8192
MAX_KEY_ID = 255
MAX_ALGORITHM = 100


class DeviceKeysShape(msgspec.Struct):
    """`DeviceKeys` (Client-Server API, `/keys/upload`)."""

    user_id: str
    device_id: str
    algorithms: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]]


class CrossSigningKeyShape(msgspec.Struct):
    """`CrossSigningKey` (Client-Server API, `/keys/device_signing/upload`)."""

    user_id: str
    usage: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]] = {}


def device_keys_text(value: dict[str, Any], user_id: str, device_id: str) -> str:
    """The JSON text to keep of the identity keys that this device uploads.

    Raises MatrixError 400 when fields are missing or it speaks of another device.
    """
    try:
        shape = msgspec.convert(value, DeviceKeysShape, strict=True)
    except msgspec.ValidationError as error:
        raise MatrixError(400, "M_BAD_JSON", f"device_keys: {error}") from None
    if shape.user_id != user_id or shape.device_id != device_id:
        raise MatrixError(400, "M_INVALID_PARAM", "device_keys belong to another user or device")
    return key_text({name: field for name, field in value.items() if name != "unsigned"}, limit=8 * MAX_KEY_BYTES)


def named_keys(keys: dict[str, Any], what: str) -> list[NamedKey]:
    """One-time or fallback keys as rows. Raises MatrixError 400 for a bad name, type or size."""
    if len(keys) > MAX_KEYS_PER_UPLOAD:
        raise MatrixError(400, "M_INVALID_PARAM", f"At most {MAX_KEYS_PER_UPLOAD} keys at once")
    rows = []
    for name, key in keys.items():
        algorithm, _, key_id = name.partition(":")
        if not algorithm or not key_id or len(algorithm) > MAX_ALGORITHM or len(key_id) > MAX_KEY_ID:
            raise MatrixError(400, "M_INVALID_PARAM", f"{what}: {name[:300]!r} is not <algorithm>:<key id>")
        if type(key) is not str and (type(key) is not dict or type(key.get("key")) is not str):
            raise MatrixError(400, "M_BAD_JSON", f"{what}: {name!r} is neither a string nor a signed key")
        rows.append(NamedKey(algorithm, key_id, key_text(key)))
    return rows


def key_text(value: Any, limit: int = MAX_KEY_BYTES) -> str:
    """JSON text with sorted keys, so that equal keys are equal texts. Raises MatrixError 413 over the limit."""
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(data) > limit:
        raise MatrixError(413, "M_TOO_LARGE", "The key is too large")
    return data.decode()
