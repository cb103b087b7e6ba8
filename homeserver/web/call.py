"""One request and its answer, whatever carried them: HTTP/1.1, a WebSocket `request` frame, or a test.

Handlers see nothing else of the web: they take a `Call` and return a dict, or an `Answer` when it is more
than "200 and this JSON object".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import orjson

from federation.rules.errors import MatrixError
from homeserver.web import body as bodies

T = TypeVar("T")

MAX_QUERY_FIELDS = 200


@dataclass(frozen=True, slots=True)
class Requester:
    """Who makes a call, as the access token says.

    `token_id` names the session, never the token itself. `app_service` is the id of the application service
    whose token it was (`user_id` is then the user it acts for). `unlimited` frees from rate limits.
    """

    user_id: str
    device_id: str | None = None
    is_guest: bool = False
    token_id: int | str | None = None
    app_service: str | None = None
    is_admin: bool = False
    unlimited: bool = False


class Call:
    """One request. `params` are the percent-decoded path parameters, set by the router; `address` is the
    caller's IP.

    `raw_path` is still percent-encoded. Header names are lower case in `headers`.
    """

    __slots__ = (
        "_fields", "_on_closed", "_on_stopping", "address", "body", "closed", "headers", "method", "params",
        "raw_path", "raw_query", "sender", "stopping", "token",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        address: str = "",
    ) -> None:
        """`target` is the request target of HTTP: path, optionally ``?`` and query, ASCII only."""
        self.method = method
        self.raw_path, _, self.raw_query = target.partition("?")
        self.headers = headers
        self.body = body
        self.address = address
        self.params: Mapping[str, str] = {}
        self.sender: Requester | None = None
        self.token: str | None = None
        """The access token that came with the call; set by the router, for endpoints that end a session."""
        self.closed = False
        """The caller went away: nobody will read the answer."""
        self.stopping = False
        """The server is stopping: waiting calls answer now, with what they have."""
        self._fields: dict[str, list[str]] | None = None
        self._on_closed: list[Callable[[], None]] | None = None
        self._on_stopping: list[Callable[[], None]] | None = None

    @property
    def path(self) -> str:
        """The path as it came, without the query."""
        return self.raw_path

    @property
    def user_agent(self) -> str:
        """The User-Agent header, or an empty string."""
        return self.headers.get("user-agent", "")

    @property
    def requester(self) -> Requester:
        """Who calls. RuntimeError on a route without authentication: see `sender` there."""
        if self.sender is None:
            raise RuntimeError("this call carries no authenticated user")
        return self.sender

    def header(self, name: str) -> str | None:
        """A request header (name in any case), decoded as Latin-1; repeated ones are joined by a comma."""
        return self.headers.get(name.lower())

    # -- query parameters

    def query(self, name: str, default: str | None = None) -> str | None:
        """The first query parameter of that name. MatrixError 400 M_INVALID_PARAM for invalid UTF-8 or
        NUL.
        """
        if not self.raw_query:
            return default
        values = self._query_fields().get(name)
        return values[0] if values else default

    def query_list(self, name: str) -> list[str]:
        """All values of a repeated query parameter, in order."""
        if not self.raw_query:
            return []
        return list(self._query_fields().get(name, ()))

    def query_int(self, name: str, default: int, low: int, high: int) -> int:
        """An integer parameter. Above `high` counts as `high` (servers may cap); below `low` or no integer:
        400.
        """
        text = self.query(name)
        if text is None:
            return default
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit()):
            raise MatrixError(400, "M_INVALID_PARAM", f"Query parameter {name!r} has to be an integer")
        if len(digits) > 18:  # beyond every limit of ours, and int() of thousands of digits is slow
            number = high + 1 if digits is text else low - 1
        else:
            number = int(text)
        if number < low:
            raise MatrixError(400, "M_INVALID_PARAM", f"Query parameter {name!r} has to be at least {low}")
        return min(number, high)

    def query_bool(self, name: str, default: bool = False) -> bool:
        """A boolean parameter: ``true`` or ``false``, else 400 M_INVALID_PARAM."""
        text = self.query(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise MatrixError(400, "M_INVALID_PARAM", f"Query parameter {name!r} has to be true or false")
        return text == "true"

    def _query_fields(self) -> dict[str, list[str]]:
        if self._fields is None:
            self._fields = parse_query(self.raw_query)
        return self._fields

    # -- body

    def json(self, type_: type[T]) -> T:
        """The body as a msgspec type, strict; see `homeserver.web.body.decode_typed` (refuses NUL in
        strings).
        """
        return bodies.decode_typed(self.body, type_)

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object with any keys; see `homeserver.web.body.decode_object` (lets NUL
        through).
        """
        return bodies.decode_object(self.body)

    # -- the caller's side of the connection

    def on_closed(self, callback: Callable[[], None]) -> None:
        """Call back once when the caller goes away before the answer (at once if already gone)."""
        if self.closed:
            callback()
        elif self._on_closed is None:
            self._on_closed = [callback]
        else:
            self._on_closed.append(callback)

    def on_stopping(self, callback: Callable[[], None]) -> None:
        """Call back once when the server begins to stop and this call is still unanswered (at once if it
        has).
        """
        if self.stopping:
            callback()
        elif self._on_stopping is None:
            self._on_stopping = [callback]
        else:
            self._on_stopping.append(callback)

    def close(self) -> None:
        """Said by the transport: the caller has gone."""
        if not self.closed:
            self.closed = True
            callbacks, self._on_closed = self._on_closed, None
            for callback in callbacks or ():
                callback()

    def stop(self) -> None:
        """Said by the transport: the server is stopping."""
        if not self.stopping:
            self.stopping = True
            callbacks, self._on_stopping = self._on_stopping, None
            for callback in callbacks or ():
                callback()


class Answer:
    """What goes back: a status, a body (bytes as they are; anything else is encoded as JSON) and extra
    headers.

    JSON bodies may hold `orjson.Fragment`s. CORS, length and date headers are added by the transport.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: object = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body = {} if body is None else body
        self.content_type = content_type
        self.headers = headers

    def encoded(self) -> bytes:
        """The bytes of the body."""
        if type(self.body) is bytes:
            return self.body
        return orjson.dumps(self.body)


def error_answer(error: MatrixError) -> Answer:
    """A refusal as the "standard error response"; 429 also tells Retry-After (seconds, RFC 9110 section
    10.2.3).
    """
    headers = None
    wait = error.extra.get("retry_after_ms")
    if type(wait) is int:
        headers = {"Retry-After": str(-(-wait // 1000))}
    return Answer(error.status, error.body(), headers=headers)


def decode_percent(text: str) -> str:
    """Undo percent-encoding. Raises MatrixError 400 M_INVALID_PARAM unless it is UTF-8 without NUL."""
    try:
        text = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise MatrixError(400, "M_INVALID_PARAM", "The URL is not percent-encoded UTF-8") from None
    if "\0" in text:
        raise MatrixError(400, "M_INVALID_PARAM", "NUL characters are not allowed in the URL")
    return text


def parse_query(raw: str) -> dict[str, list[str]]:
    """The fields of a query string (application/x-www-form-urlencoded), in order of appearance for each name.

    Raises MatrixError 400 M_INVALID_PARAM for more than `MAX_QUERY_FIELDS`, invalid UTF-8 or NUL.
    """
    pieces = raw.split("&", MAX_QUERY_FIELDS)
    if len(pieces) > MAX_QUERY_FIELDS:
        raise MatrixError(400, "M_INVALID_PARAM", "Too many query parameters")
    fields: dict[str, list[str]] = {}
    for piece in pieces:
        if not piece:
            continue
        name, _, value = piece.replace("+", " ").partition("=")
        fields.setdefault(decode_percent(name) if "%" in name else name, []).append(
            decode_percent(value) if "%" in value else value
        )
    return fields
