"""The protocol of the WebSocket sync, as a machine without I/O: frames go in, actions come out.

The machine knows the order of things (hello first, once), the shape of every frame, and the bounds on what a client
may ask for. It does not know sockets, tokens' meaning, storage or time: the edge (``sync/live``) carries out the
actions, in their order, and reports back. ``docs/websocket.md`` describes the same protocol to those who write clients.

States::

    WAITING --hello--> CHECKING --accepted--> LIVE
       \\________________\\________refused/closed______> CLOSED
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson

from federation.rules.errors import MatrixError

MAX_REQUESTS = 16
"""Requests of one socket that may be running at once; the next is answered 429."""
MAX_ID_BYTES = 128
METHODS = frozenset({"GET", "PUT", "POST", "DELETE"})


class Code(IntEnum):
    """Close codes of ours. 4000-4009: come back with the same token; 4010-4019: not with this token; 4020-: our
    fault or yours, look at the reason before trying again."""

    RESTART = 4000
    TOO_SLOW = 4001
    REPLACED = 4002
    UNKNOWN_TOKEN = 4010
    LOGGED_OUT = 4011
    FORBIDDEN = 4012
    NO_HELLO = 4020
    BAD_FRAME = 4021
    TOO_MANY_CONNECTIONS = 4022
    INTERNAL = 4023


@dataclass(frozen=True, slots=True)
class Hello:
    """Action: find out whose token this is, then call ``accepted`` or ``refused``."""

    token: str
    since: str | None
    filter: str | dict[str, Any] | None
    set_presence: str
    unread: bool


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Action: the client has kept everything up to this sync token."""

    next_batch: str


@dataclass(frozen=True, slots=True)
class Request:
    """Action: make this Client-Server call for the client, then call ``answered`` with the same ``id``."""

    id: str | int
    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Send:
    """Action: send this text frame."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Action: close the socket with this code and reason."""

    code: int
    reason: str


Action = Hello | Acknowledge | Request | Send | Close


class State(IntEnum):
    """Where a connection stands."""

    WAITING = 0
    CHECKING = 1
    LIVE = 2
    CLOSED = 3


@dataclass(slots=True)
class Stream:
    """One connection. ``header_token`` is the access token of the upgrade request's Authorization header, if any."""

    header_token: str | None = None
    state: State = State.WAITING
    _running: set[str | int] = field(default_factory=set)

    def received(self, data: bytes) -> list[Action]:
        """A text frame arrived."""
        if self.state == State.CLOSED:
            return []
        try:
            frame = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self.close(Code.BAD_FRAME, "The frame is not JSON")
        kind = frame.get("type") if isinstance(frame, dict) else None
        if self.state == State.WAITING and kind != "hello":
            return self.close(Code.NO_HELLO, "The first frame has to be hello")
        handler = _HANDLERS.get(kind) if isinstance(kind, str) else None
        if handler is None:
            return [_error("M_UNRECOGNIZED", "Unknown type of frame")]
        try:
            return handler(self, frame)
        except _BadFrame as problem:
            return self.close(Code.BAD_FRAME, str(problem))

    def binary_received(self) -> list[Action]:
        """A binary frame arrived: there are none in this protocol."""
        return self.close(Code.BAD_FRAME, "Frames have to be text")

    def accepted(self, user_id: str, device_id: str | None, next_batch: str | None) -> list[Action]:
        """The hello is good; updates continue after ``next_batch`` (None: from the beginning)."""
        if self.state != State.CHECKING:
            return []
        self.state = State.LIVE
        welcome = {"type": "welcome", "user_id": user_id, "device_id": device_id, "since": next_batch}
        return [Send(orjson.dumps(welcome))]

    def refused(self, error: MatrixError) -> list[Action]:
        """The hello is no good."""
        code = Code.UNKNOWN_TOKEN if error.status == 401 else Code.FORBIDDEN
        if error.status == 429:
            code = Code.TOO_MANY_CONNECTIONS
        elif error.status == 400:
            code = Code.BAD_FRAME
        elif error.status >= 500:
            code = Code.INTERNAL
        return [Send(orjson.dumps({"type": "error", **error.body()})), *self.close(code, error.error)]

    def answered(self, request_id: str | int, status: int, body: Any) -> list[Action]:
        """A request is done. ``body`` is anything orjson can encode (a ``Fragment`` for bytes that are JSON)."""
        self._running.discard(request_id)
        if self.state == State.CLOSED:
            return []
        return [Send(orjson.dumps({"type": "response", "id": request_id, "status": status, "body": body}))]

    def hello_overdue(self) -> list[Action]:
        """The time for a valid hello is over."""
        if self.state in (State.LIVE, State.CLOSED):
            return []
        return self.close(Code.NO_HELLO, "No valid hello in time")

    def close(self, code: Code, reason: str) -> list[Action]:
        """End the connection from our side; nothing is sent or accepted afterwards."""
        if self.state == State.CLOSED:
            return []
        self.state = State.CLOSED
        return [Close(int(code), reason.encode()[:120].decode(errors="ignore"))]

    def closed(self) -> None:
        """The connection is gone."""
        self.state = State.CLOSED

    def _hello(self, frame: dict[str, Any]) -> list[Action]:
        if self.state != State.WAITING:
            raise _BadFrame("hello was said already")
        token = _optional(frame, "access_token", str) or self.header_token
        if not token:
            return self.refused(MatrixError(401, "M_MISSING_TOKEN", "hello needs an access_token"))
        filter_ = frame.get("filter")
        if filter_ is not None and not isinstance(filter_, str | dict):
            raise _BadFrame("filter has to be an id or an object")
        presence = _optional(frame, "set_presence", str) or "online"
        if presence not in ("online", "unavailable", "offline"):
            raise _BadFrame("set_presence has to be online, unavailable or offline")
        self.state = State.CHECKING
        since = _optional(frame, "since", str)
        return [Hello(token, since, filter_, presence, bool(_optional(frame, "unread", bool)))]

    def _ack(self, frame: dict[str, Any]) -> list[Action]:
        token = _optional(frame, "next_batch", str)
        if self.state != State.LIVE or not token or len(token) > 100:
            raise _BadFrame("ack needs the next_batch of a sync frame")
        return [Acknowledge(token)]

    def _request(self, frame: dict[str, Any]) -> list[Action]:
        request_id = frame.get("id")
        if not isinstance(request_id, str | int) or isinstance(request_id, bool):
            raise _BadFrame("id has to be a string or an integer")
        if isinstance(request_id, str) and len(request_id.encode()) > MAX_ID_BYTES:
            raise _BadFrame("id is too long")
        if self.state != State.LIVE:
            raise _BadFrame("request came before welcome")
        method, path = frame.get("method"), frame.get("path")
        if method not in METHODS or not isinstance(path, str) or not _printable(path):
            raise _BadFrame("request needs a method and a path")
        if request_id in self._running or len(self._running) >= MAX_REQUESTS:
            refusal = MatrixError(429, "M_LIMIT_EXCEEDED", "Too many requests at once", retry_after_ms=100)
            return [_response(request_id, refusal)]
        try:
            body = orjson.dumps(frame["body"]) if frame.get("body") is not None else b""
        except TypeError:
            raise _BadFrame("body is nested too deeply") from None
        self._running.add(request_id)
        return [Request(request_id, method, path, body)]

    def _ping(self, frame: dict[str, Any]) -> list[Action]:
        return [Send(orjson.dumps({"type": "pong", "id": _optional(frame, "id", str)}))]


class _BadFrame(Exception):
    """The frame's shape is wrong; its text is the reason of the close."""


_HANDLERS: dict[str, Callable[[Stream, dict[str, Any]], list[Action]]] = {
    "hello": Stream._hello,
    "ack": Stream._ack,
    "request": Stream._request,
    "ping": Stream._ping,
}


@dataclass(slots=True)
class Delivery:
    """What one live connection has been sent, so that a slow reader costs a number and not a queue.

    ``sent`` is the position up to which everything was handed to the socket. While the socket is full nothing is
    built; the changes of that time are one combined delta when it has drained.
    """

    sent: int
    congested: bool = False
    owed: bool = False
    building: bool = False

    def offer_shared(self, position: int) -> bool:
        """Whether a frame that holds exactly the next change may go out as it is; notes it as sent or as owed."""
        if self.congested or self.owed or self.building:
            self.owed = True
            return False
        self.sent = position
        return True

    def changed(self) -> None:
        """Something came that needs a delta of this connection's own."""
        self.owed = True

    def start_delta(self) -> bool:
        """Whether to build a delta now, from ``sent`` on. Ends with ``delta_sent``."""
        if self.congested or self.building or not self.owed:
            return False
        self.owed, self.building = False, True
        return True

    def delta_sent(self, position: int) -> None:
        """The delta up to ``position`` is with the socket (or there was nothing to tell)."""
        self.building = False
        self.sent = max(self.sent, position)

    def drained(self) -> None:
        """The socket's buffer is empty again; what was missed is owed."""
        self.congested = False


def _optional(frame: dict[str, Any], key: str, type_: type) -> Any:
    value = frame.get(key)
    if value is not None and not isinstance(value, type_):
        raise _BadFrame(f"{key} has the wrong type")
    return value


def _printable(path: str) -> bool:
    """A path as it stands in a request line: absolute, ASCII, no spaces or controls; not endless."""
    return path.startswith("/_matrix/client/") and len(path) <= 8192 and all("!" <= c <= "~" for c in path)


def _error(errcode: str, error: str) -> Send:
    return Send(orjson.dumps({"type": "error", "errcode": errcode, "error": error}))


def _response(request_id: str | int, error: MatrixError) -> Send:
    return Send(orjson.dumps({"type": "response", "id": request_id, "status": error.status, "body": error.body()}))
