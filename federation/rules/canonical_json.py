"""JSON in its one canonical form, and the decoder for JSON from other servers.

Specification: Appendices, "Canonical JSON"; room versions 1 to 5 do not enforce the range of numbers ("lax").
orjson writes canonical JSON when told to sort keys, apart from floats; it sorts by UTF-8 bytes, which is the
order of code points.
"""

import json
from collections.abc import Mapping
from typing import Any

import orjson

from federation.rules.errors import MatrixError

MAX_INTEGER = 2**53 - 1
MAX_ENCODE_DEPTH = 200
"""Nesting of an object that we hash or store. orjson itself ends at 254."""
MAX_DECODE_DEPTH = 220
"""Nesting of a whole body: an event of the greatest nesting still fits into a transaction."""

_PLAIN = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_STRICT = _PLAIN | orjson.OPT_STRICT_INTEGER


class CanonicalJSONError(MatrixError):
    """A value that canonical JSON cannot carry, or text that is not JSON; answered 400."""

    def __init__(self, error: str, errcode: str = "M_BAD_JSON") -> None:
        super().__init__(400, errcode, error)


class _HasFloat(Exception):
    """The value holds a float, so that orjson's form of it would not do."""


def encode(value: Any) -> bytes:
    """Canonical JSON of a value, as room version 6 and later demand.

    Raises CanonicalJSONError for floats, integers beyond ±(2^53-1), lone surrogates, nesting over 200 levels
    and whatever JSON does not have.
    """
    try:
        _refuse_floats(value, MAX_ENCODE_DEPTH)
        return orjson.dumps(value, option=_STRICT)
    except _HasFloat:
        raise CanonicalJSONError("Canonical JSON has no fractions or exponents") from None
    except (TypeError, RecursionError) as error:
        raise CanonicalJSONError(f"Not canonical JSON: {error}") from None


def encode_members(obj: dict[str, Any], strict: bool) -> dict[str, bytes]:
    """Each member of an object, ``"key":value`` in canonical JSON, by its key; keys in canonical order.

    ``strict`` as in ``encode``, else as in ``encode_lax``. Raises CanonicalJSONError; each value may be nested as deeply
    as if it were encoded alone.
    """
    option = _STRICT if strict else _PLAIN
    dumps = orjson.dumps
    try:
        _refuse_floats(obj, MAX_ENCODE_DEPTH + 1)
        return {key: dumps({key: obj[key]}, option=option)[1:-1] for key in sorted(obj)}
    except (_HasFloat, TypeError):
        whole = encode if strict else encode_lax
        return {key: whole(key) + b":" + whole(obj[key]) for key in sorted(obj)}


def join_members(members: Mapping[str, bytes]) -> bytes:
    """The object that these encoded members, in canonical order, make."""
    return b"{%b}" % b",".join(members.values())


def encode_lax(value: Any) -> bytes:
    """Canonical JSON for room versions 1 to 5: any finite number is written, keys are sorted.

    Floats take Python's shortest form, which is what events of these rooms have been hashed with.
    Raises CanonicalJSONError for NaN, infinities, lone surrogates and nesting over 200 levels.
    """
    try:
        _refuse_floats(value, MAX_ENCODE_DEPTH)
        return orjson.dumps(value, option=_PLAIN)
    except (_HasFloat, TypeError):
        return _encode_with_python(value)


def _encode_with_python(value: Any) -> bytes:
    _check_depth(value, MAX_ENCODE_DEPTH)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise CanonicalJSONError(f"Not JSON: {error}") from None


def decode_strict(data: bytes) -> Any:
    """Decode JSON that another server sent.

    Refuses NaN and infinities, numbers beyond binary64, duplicate keys, lone surrogates, invalid UTF-8 and
    nesting over 220 levels. Finite floats stay floats: whether a room may have them is for its version
    to say.
    Raises CanonicalJSONError (M_NOT_JSON).
    """
    value = _decode(data)
    try:
        _refuse_floats(value, MAX_DECODE_DEPTH)
        # A float-free value has no shorter text than its canonical one, so equal length leaves no room for a
        # second key of the same name. Other servers send compact JSON: this is the usual way out.
        if len(orjson.dumps(value)) == len(data):
            return value
    except _HasFloat:
        pass
    except TypeError:
        pass
    return _decode_with_python(data, float)


def decode_event(data: memoryview, strict: bool) -> Any:
    """Decode one event out of a longer text, for ``Event.from_pdu``: as ``decode_strict``, at less cost.

    ``strict``: a room of version 6 or later, whose events have no floats. Whether this one has is left to who reads it.
    Raises CanonicalJSONError (M_NOT_JSON).
    """
    if strict:
        value = _decode(data)
        try:
            if len(orjson.dumps(value)) == len(data):
                return value
        except TypeError:
            pass
    return decode_strict(bytes(data))


def decode_lax(data: bytes) -> Any:
    """Decode JSON for a room of version 1 to 5: as ``decode_strict``, but ``1e10`` is an integer.

    Only numbers written with an exponent and without a fraction are taken so, within ±(2^53-1): encoders that
    use exponents do so for greater floats alone.
    """
    _decode(data)
    return _decode_with_python(data, _integer_from_exponent)


def _decode(data: bytes | memoryview) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise CanonicalJSONError(f"Not JSON: {error.msg}", "M_NOT_JSON") from None


def _decode_with_python(data: bytes, parse_float: Any) -> Any:
    value = None
    try:
        value = json.loads(data.decode("utf-8"), parse_float=parse_float, object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise CanonicalJSONError(f"Not JSON: {error}", "M_NOT_JSON") from None
    _check_depth(value, MAX_DECODE_DEPTH, "M_NOT_JSON")
    return value


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("the same key twice in one object")
    return made


def _integer_from_exponent(text: str) -> float | int:
    number = float(text)
    if "." not in text and abs(number) <= MAX_INTEGER and number.is_integer():
        return int(number)
    return number


def _refuse_floats(value: Any, levels: int) -> None:
    kind = type(value)
    if kind is dict:
        values = value.values()
    elif kind is list or kind is tuple:
        values = value
    elif kind is float:
        raise _HasFloat
    else:
        return
    if not levels:
        raise CanonicalJSONError("Nested too deeply")
    for inner in values:
        kind = type(inner)
        if kind is str or kind is int:
            continue
        _refuse_floats(inner, levels - 1)


def _check_depth(value: Any, levels: int, errcode: str = "M_BAD_JSON") -> None:
    if isinstance(value, (dict, list, tuple)):
        if not levels:
            raise CanonicalJSONError("Nested too deeply", errcode)
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1, errcode)
