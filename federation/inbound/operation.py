"""What an endpoint for other servers declares, and what it is given.

Endpoints know neither HTTP nor how requests are authenticated: they get the name of the server that signed the
request, and return a JSON value. Errors are MatrixErrors.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from federation.rules.errors import MatrixError

TRANSACTION_LIMIT = 50 * 65536 + 100 * 65536 + 65536
"""Bytes of a transaction: 50 PDUs and 100 EDUs at their largest, and what is around them."""
EVENT_LIMIT = 4 * 65536
INVITE_LIMIT = 40 * 65536
"""An invite comes with some state events of its room."""


@dataclass(slots=True)
class PeerRequest:
    """A request of another server. ``origin`` has signed it; empty on the few operations that need no signature."""

    origin: str
    params: Mapping[str, str]
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    content: Any = None
    """The decoded body, None without one."""

    def object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises MatrixError 400 M_BAD_JSON."""
        if not isinstance(self.content, dict):
            raise MatrixError(400, "M_BAD_JSON", "The body is not a JSON object")
        return self.content

    def query(self, name: str) -> str | None:
        """The first query parameter of that name."""
        values = self.fields.get(name)
        return values[0] if values else None

    def query_list(self, name: str) -> list[str]:
        """All query parameters of that name."""
        return self.fields.get(name, [])

    def required(self, name: str) -> str:
        """A query parameter that has to be there. Raises MatrixError 400 M_MISSING_PARAM."""
        value = self.query(name)
        if value is None:
            raise MatrixError(400, "M_MISSING_PARAM", f"Query parameter {name!r} is missing")
        return value

    def number(self, name: str, default: int | None, low: int, high: int) -> int:
        """An integer parameter held between bounds. MatrixError 400 when it is none, or missing without a default."""
        text = self.query(name) if default is not None else self.required(name)
        if text is None:
            return default or 0
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()):
            raise MatrixError(400, "M_INVALID_PARAM", f"Query parameter {name!r} has to be an integer")
        value = int(digits) if len(digits) <= 18 else 10**18
        return max(low, min(high, -value if text.startswith("-") else value))


Handler = Callable[[PeerRequest], Awaitable[Any]]


class Operation(NamedTuple):
    """One operation of the Server-Server API. ``signed`` False for those that anybody may call."""

    method: str
    path: str
    handler: Handler
    body_limit: int | None = None
    signed: bool = True


def body_number(content: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """An integer of a body held between bounds; MatrixError 400 M_BAD_JSON for anything else there."""
    value = content.get(name, default)
    if type(value) is not int:
        raise MatrixError(400, "M_BAD_JSON", f"{name!r} has to be an integer")
    return max(low, min(high, value))


def body_strings(content: Mapping[str, Any], name: str, most: int) -> list[str]:
    """A list of strings of a body, cut to ``most``; MatrixError 400 M_BAD_JSON for anything else there."""
    value = content.get(name, [])
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise MatrixError(400, "M_BAD_JSON", f"{name!r} has to be a list of strings")
    return value[:most]
