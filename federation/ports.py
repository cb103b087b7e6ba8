"""What federation needs from the layers above it, and what it hands to them.

Federation knows nothing of HTTP servers, rooms or accounts: it declares here, in its own words, what it asks for, and
``homeserver/main.py`` gives it objects that fit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Call(Protocol):
    """One request from another server, as the web edge carries it (``homeserver.web.call.Call``)."""

    method: str
    raw_path: str
    """Percent-encoded, without the query: what the caller signed."""
    raw_query: str
    headers: Mapping[str, str]
    """Names in lower case; repeated fields are joined by a comma."""
    body: bytes
    address: str
    params: Mapping[str, str]
    """The path's parameters, percent-decoded."""

    def query(self, name: str, default: str | None = None) -> str | None:
        """The first query parameter of that name. Raises MatrixError 400."""

    def query_list(self, name: str) -> list[str]:
        """All values of a repeated query parameter."""

    def query_int(self, name: str, default: int, low: int, high: int) -> int:
        """An integer parameter, capped at ``high``. Raises MatrixError 400."""

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object. Raises MatrixError 400."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is more than "200 and this JSON object"."""

    status: int
    body: object
    content_type: str = "application/json"
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation that other servers may call; the web edge makes a route of it.

    ``handler`` takes a ``Call`` and returns a dict (200), a ``Reply``, or a coroutine of either. Whether the request
    has to be signed is the handler's affair (``federation.wire.request_auth.signed`` wraps those).
    """

    method: str
    path: str
    handler: Callable[[Any], Any]
    body_limit: int | None = None
    aliases: tuple[str, ...] = ()


class Destinations(Protocol):
    """Which servers are not to be bothered for now: the back-off of each, durable elsewhere."""

    def refused_until(self, server_name: str) -> int | None:
        """When to try again (milliseconds since the epoch), None when nothing speaks against trying now."""

    def succeeded(self, server_name: str) -> None:
        """It answered, be it with a refusal, or it called us: it is alive."""

    def failed(self, server_name: str, reason: str) -> None:
        """It could not be reached, did not answer in time, or has trouble of its own (5xx)."""
