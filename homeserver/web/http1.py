"""HTTP/1.1 framing without I/O: request heads and chunked bodies, from bytes to values.

Strict where two readers of the same bytes could disagree about where a request ends (request smuggling):
RFC 9112, sections 2.2, 3, 5, 6 and 7.1 leave such messages to be refused, and here they all are.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

MAX_HEAD = 16 * 1024
"""Bytes of request line and header fields together."""
MAX_FIELDS = 100
MAX_REMEMBERED = 1024
"""Bytes of header fields that a connection keeps to compare the next request's with."""
_MAX_CHUNK_LINE = 256
_MAX_TRAILERS = 4096

# token = 1*tchar (RFC 9110 section 5.6.2); a field value holds no control characters but tab (section 5.5).
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,20}) ([!-~]+) HTTP/1\.([01])")
_FIELDS = re.compile(rb"(?:\r\n" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*)*")
_DIGITS = re.compile(r"[0-9]{1,15}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t -~]*)?")
_TRAILERS = re.compile(rb"(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*")
_SINGLE = frozenset(("host", "content-length", "transfer-encoding", "authorization", "content-type"))


class BadRequest(Exception):
    """The other side broke the rules; it gets `status` and the connection ends."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Head(NamedTuple):
    """A request's head. `length` is the size of its body in bytes, None for a chunked one."""

    method: str
    target: str
    headers: dict[str, str]
    length: int | None
    keep_alive: bool
    minor_version: int


class _Fields(NamedTuple):
    """The header fields of a head, read, and the bytes (from the line break before them on) that they were read from."""

    block: bytes
    minor_version: int
    headers: dict[str, str]
    length: int | None
    keep_alive: bool


class HeadReader:
    """Reads the heads of one connection.

    A client sends the same fields with each of its requests, the target alone differs. Fields that are byte for byte
    those of the request before are not read again; their ``headers`` are one dict, which nobody may change.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: _Fields | None = None

    def read(self, block: bytes) -> Head:
        """A head up to, not including, the empty line that ends it. Raises BadRequest."""
        end = block.find(b"\r\n")
        if end < 0:
            end = len(block)
        line = _REQUEST_LINE.fullmatch(block, 0, end)
        if line is None:
            raise BadRequest("Malformed request line")
        method, target, minor = line.groups()
        minor_version = 1 if minor == b"1" else 0
        field_block = block[end:]
        fields = self._last
        if fields is None or fields.block != field_block or fields.minor_version != minor_version:
            fields = _parse_fields(field_block, minor_version)
            self._last = fields if len(field_block) <= MAX_REMEMBERED else None
        return Head(
            method.decode("ascii"),
            _origin_form(target.decode("ascii")),
            fields.headers,
            fields.length,
            fields.keep_alive,
            minor_version,
        )


def _parse_fields(block: bytes, minor_version: int) -> _Fields:
    headers: dict[str, str] = {}
    if block:
        if _FIELDS.fullmatch(block) is None:
            raise BadRequest("Malformed header field")
        _read_fields(block[2:].decode("latin-1"), headers)
    if minor_version and "host" not in headers:
        raise BadRequest("Missing Host header field")
    return _Fields(block, minor_version, headers, _body_length(headers, minor_version), _keep_alive(headers, minor_version))


def _read_fields(text: str, headers: dict[str, str]) -> None:
    lines = text.split("\r\n")
    if len(lines) > MAX_FIELDS:
        raise BadRequest("Too many header fields", 431)
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        value = value.strip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise BadRequest(f"Repeated header field {name}")
            value = f"{headers[name]}, {value}"
        headers[name] = value


def _origin_form(target: str) -> str:
    """Section 3.2: absolute-form has to be accepted as well; the authority in it decides nothing here."""
    if target.startswith("/") or target == "*":
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise BadRequest("Malformed request target")
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _body_length(headers: dict[str, str], minor_version: int) -> int | None:
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or not minor_version:
            raise BadRequest("Ambiguous message framing")
        if coding.lower() != "chunked":
            raise BadRequest("Unknown transfer coding", 501)
        return None
    if length is None:
        return 0
    if _DIGITS.fullmatch(length) is None:
        raise BadRequest("Malformed Content-Length")
    return int(length)


def _keep_alive(headers: dict[str, str], minor_version: int) -> bool:
    connection = headers.get("connection")
    if connection is None:
        return minor_version == 1
    options = [option.strip() for option in connection.lower().split(",")]
    return "close" not in options and (minor_version == 1 or "keep-alive" in options)


class FixedBody:
    """A body of known length, collected piece by piece."""

    def __init__(self, length: int) -> None:
        self._missing = length
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; None while more is needed, else what follows the body."""
        piece = data[: self._missing]
        self._pieces.append(piece)
        self._missing -= len(piece)
        return None if self._missing else data[len(piece) :]

    def whole(self) -> bytes:
        """The body, once `feed` said that it is complete."""
        return b"".join(self._pieces)


class ChunkedBody:
    """A body in the chunked transfer coding (RFC 9112 section 7.1), of at most `limit` bytes decoded."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._pieces: list[bytes] = []
        self._waiting = b""
        self._chunk = 0
        self._step: Callable[[], bool] | None = self._size_line

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; None while more is needed, else what follows the body. Raises BadRequest (413: too
        large).
        """
        self._waiting += data
        while self._step is not None:
            if not self._step():
                return None
        return self._waiting

    def whole(self) -> bytes:
        """The decoded body, once `feed` said that it is complete."""
        return b"".join(self._pieces)

    def _size_line(self) -> bool:
        end = self._waiting.find(b"\r\n", 0, _MAX_CHUNK_LINE)
        if end < 0:
            if len(self._waiting) >= _MAX_CHUNK_LINE:
                raise BadRequest("Malformed chunk size")
            return False
        line = _CHUNK_LINE.fullmatch(self._waiting, 0, end)
        if line is None:
            raise BadRequest("Malformed chunk size")
        self._chunk = int(line[1], 16)
        if self._chunk > self._room:
            raise BadRequest("Request body too large", 413)
        self._room -= self._chunk
        self._waiting = self._waiting[end + 2 :]
        self._step = self._data if self._chunk else self._trailers
        return True

    def _data(self) -> bool:
        if self._chunk:
            piece = self._waiting[: self._chunk]
            self._pieces.append(piece)
            self._chunk -= len(piece)
            self._waiting = self._waiting[len(piece) :]
        if self._chunk or len(self._waiting) < 2:
            return False
        if self._waiting[:2] != b"\r\n":
            raise BadRequest("Malformed chunk")
        self._waiting = self._waiting[2:]
        self._step = self._size_line
        return True

    def _trailers(self) -> bool:
        """Trailer fields are checked and dropped: nothing here may depend on them."""
        end = 0 if self._waiting[:2] == b"\r\n" else self._waiting.find(b"\r\n\r\n", 0, _MAX_TRAILERS) + 2
        if end == 1:
            if len(self._waiting) >= _MAX_TRAILERS:
                raise BadRequest("Too many trailer fields", 431)
            return False
        if _TRAILERS.fullmatch(self._waiting, 0, end) is None:
            raise BadRequest("Malformed trailer field")
        self._waiting = self._waiting[end + 2 :]
        self._step = None
        return True
