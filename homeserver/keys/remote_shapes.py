"""What other servers say of their users' devices and keys, checked for shape, owner and size. Pure.

Signatures are not verified here: readers hold them against the keys that they trust. What is kept must only not speak of
somebody else, and must have a bound.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

import msgspec
import orjson

from federation.rules.errors import MatrixError
from homeserver.keys.shapes import MAX_KEY_BYTES, CrossSigningKeyShape

MAX_DEVICES = 1000
"""Devices of one user; a longer list is not kept."""
MAX_DEVICE_ID_BYTES = 255
MAX_DEVICE_BYTES = 2 * MAX_KEY_BYTES
MAX_LIST_BYTES = 1 << 20
"""Bytes of all devices of one user together; a larger list is not kept."""
MAX_NAME = 256
"""Characters of a device's name that are kept."""
MAX_PREVIOUS = 100
MAX_STREAM_ID = 2**53


class DeviceUpdate(NamedTuple):
    """An ``m.device_list_update``. ``keys`` is None when the device is gone or has no keys."""

    user_id: str
    device_id: str
    stream_id: int
    previous: frozenset[int]
    keys: bytes | None


class DeviceList(NamedTuple):
    """A user's whole list. ``stream_id`` is None when the answer does not say which version it is."""

    stream_id: int | None
    devices: dict[str, bytes]
    master: bytes | None
    self_signing: bytes | None


def device_update(user_id: str, content: Mapping[str, Any]) -> DeviceUpdate:
    """An update of a user's device. Raises MatrixError 400 for what is malformed, too large, or about somebody else."""
    device_id, stream_id = content.get("device_id"), content.get("stream_id")
    previous = content.get("prev_id") or []
    if not _is_device_id(device_id) or not _is_stream_id(stream_id):
        raise MatrixError(400, "M_BAD_JSON", "An update of a device has a device_id and a stream_id")
    if not isinstance(previous, list) or len(previous) > MAX_PREVIOUS or not all(map(_is_stream_id, previous)):
        raise MatrixError(400, "M_BAD_JSON", "prev_id is a list of stream ids")
    keys = None
    if content.get("deleted") is not True and content.get("keys") is not None:
        keys = device_json(user_id, device_id, content["keys"], content.get("device_display_name"))
    return DeviceUpdate(user_id, device_id, stream_id, frozenset(previous), keys)


def device_list(
    user_id: str,
    stream_id: int | None,
    devices: Iterable[tuple[Any, Any, Any]],
    master: object,
    self_signing: object,
) -> DeviceList:
    """A list of ``(device ID, keys, name)``. One bad device is left out; raises MatrixError 400 for too many."""
    found: dict[str, bytes] = {}
    for number, (device_id, keys, name) in enumerate(devices):
        if number >= MAX_DEVICES:
            raise MatrixError(400, "M_TOO_LARGE", f"More than {MAX_DEVICES} devices")
        if not _is_device_id(device_id) or keys is None:
            continue
        try:
            found[device_id] = device_json(user_id, device_id, keys, name)
        except MatrixError:
            continue
    if not is_bounded(found):
        raise MatrixError(400, "M_TOO_LARGE", "The keys of all devices are too large")
    if stream_id is not None and not _is_stream_id(stream_id):
        stream_id = None
    return DeviceList(
        stream_id,
        found,
        None if master is None else cross_signing_json(user_id, "master", master),
        None if self_signing is None else cross_signing_json(user_id, "self_signing", self_signing),
    )


def is_bounded(devices: Mapping[str, bytes]) -> bool:
    """Whether so many devices of one user are kept."""
    return len(devices) <= MAX_DEVICES and sum(map(len, devices.values())) <= MAX_LIST_BYTES


def device_json(user_id: str, device_id: str, keys: object, name: object) -> bytes:
    """A device as `/keys/query` shows it. Raises MatrixError 400 when it speaks of another device, or is too large."""
    if not isinstance(keys, dict):
        raise MatrixError(400, "M_BAD_JSON", "The keys of a device are an object")
    if keys.get("user_id", user_id) != user_id or keys.get("device_id", device_id) != device_id:
        raise MatrixError(400, "M_INVALID_PARAM", "These are keys of another device")
    unsigned = {"device_display_name": name[:MAX_NAME]} if isinstance(name, str) else {}
    return _bounded({**keys, "unsigned": unsigned}, MAX_DEVICE_BYTES)


def cross_signing_json(user_id: str, usage: str, key: object) -> bytes | None:
    """A cross-signing key; None when it is not this user's one key for this use, or too large."""
    try:
        shape = msgspec.convert(key, CrossSigningKeyShape, strict=True)
    except msgspec.ValidationError:
        return None
    if shape.user_id != user_id or usage not in shape.usage or len(shape.keys) != 1:
        return None
    try:
        return _bounded(key, MAX_KEY_BYTES)
    except MatrixError:
        return None


def _bounded(value: object, limit: int) -> bytes:
    try:
        data = orjson.dumps(value)
    except TypeError:
        raise MatrixError(400, "M_BAD_JSON", "Not JSON") from None
    if len(data) > limit:
        raise MatrixError(400, "M_TOO_LARGE", "The keys are too large")
    return data


def _is_device_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value.encode("utf-8", "replace")) <= MAX_DEVICE_ID_BYTES


def _is_stream_id(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < MAX_STREAM_ID
