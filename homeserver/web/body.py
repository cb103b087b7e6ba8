"""Request bodies: from untrusted bytes to checked values.

The one parser for everything that clients send as JSON, over HTTP and in WebSocket frames alike. What it
lets through is valid Unicode, holds no NaN or infinity and is nested no deeper than `MAX_NESTING`, so that
later code may recurse over it. Numbers are not held to the canonical JSON range here: that depends on the
room version.
"""

from typing import Any, TypeVar

import msgspec
import orjson

from federation.rules.errors import MatrixError

T = TypeVar("T")

MAX_NESTING = 100
"""Objects and arrays inside each other, the outermost counted."""


def decode(body: bytes) -> Any:
    """The JSON value of a request body; an absent body is an empty object.

    Raises `MatrixError` 400 M_NOT_JSON for what is not JSON in UTF-8 (NaN, Infinity, a number too large to
    hold, lone surrogates and overlong forms included), 400 M_BAD_JSON for what is nested too deep.
    """
    if not body:
        return {}
    try:
        value = orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError):
        raise MatrixError(400, "M_NOT_JSON", "The body is not valid JSON") from None
    # Only more brackets than levels can exceed the limit: two quick counts spare nearly every body the walk.
    if body.count(b"{") + body.count(b"[") > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise MatrixError(400, "M_BAD_JSON", f"The body is nested deeper than {MAX_NESTING} levels")
    return value


def decode_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request body, any keys. Raises like `decode`; 400 M_BAD_JSON for another type."""
    value = decode(body)
    if type(value) is not dict:
        raise MatrixError(400, "M_BAD_JSON", "The body has to be a JSON object")
    return value


def decode_typed(body: bytes, type_: type[T]) -> T:
    """The body as a `msgspec.Struct` (or any type msgspec knows), strictly: a boolean is no integer.

    Such a body becomes columns in PostgreSQL sooner or later, which cannot hold NUL: refused here.
    Raises like `decode`; 400 M_BAD_JSON names the field that is missing or of the wrong type.
    """
    value = decode(body)
    if b"\\u0000" in body and holds_nul(value):
        raise MatrixError(400, "M_BAD_JSON", "NUL characters are not allowed here")
    try:
        return msgspec.convert(value, type_, strict=True)
    except msgspec.ValidationError as error:
        raise MatrixError(400, "M_BAD_JSON", str(error)) from None


def holds_nul(value: Any) -> bool:
    """Whether a string anywhere in a decoded JSON value, keys included, holds the character NUL."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def _nesting(value: Any) -> int:
    """Levels of containers, found level by level without recursion."""
    depth = 0
    level = [value] if type(value) in (dict, list) else []
    while level:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list
        ]
    return depth
