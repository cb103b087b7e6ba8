"""Reading an HTTP/1.1 answer as it arrives, within bounds. Pure: bytes in, an answer out.

RFC 9112. Every framing that could be read in two ways is refused: the connection would carry somebody's bytes on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

MAX_HEAD = 64 * 1024
"""Bytes of status line and header fields."""
MAX_CHUNK_LINE = 1024
MAX_PASSED_OVER = 20
"""Interim answers (1xx) and trailing fields, which nobody reads."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class HttpFailure(Exception):
    """No usable answer; the message says why."""


class TooLarge(HttpFailure):
    """More bytes than allowed."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, header fields (names in lower case, the last of each name), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Part(Enum):
    """What of a body in chunks comes next."""

    SIZE = auto()
    DATA = auto()
    END = auto()
    """The end of the line behind a chunk."""
    TRAILER = auto()


class AnswerReader:
    """Reads one answer, to anything but HEAD. `feed` it what arrives until it gives the answer."""

    __slots__ = ("_body", "_buffer", "_head", "_left", "_limit", "_part", "_spared", "_status", "kept")

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes`` bounds the body."""
        self._limit = max_bytes
        self._buffer = b""
        self._head: dict[str, str] | None = None
        self._status = 0
        self._body = bytearray()
        self._part: _Part | None = None
        """None for a body that is not in chunks."""
        self._left: int | None = 0
        """Bytes that are missing of the body or of the chunk; None: the body ends with the connection."""
        self._spared = MAX_PASSED_OVER
        self.kept = False
        """Whether the connection may carry another request once the answer is there."""

    def feed(self, data: bytes) -> HttpAnswer | None:
        """Take what has arrived; the answer when it is complete. Raises HttpFailure."""
        if self._head is None:
            self._buffer += data
            if not self._read_head():
                return None
            data, self._buffer = self._buffer, b""
        if self._part is not None:
            return self._chunks(self._buffer + data)
        if self._left is None:
            self._take(data)
            return None
        if len(data) > self._left:
            self.kept = False  # an answer to nothing follows
            data = data[: self._left]
        self._take(data)
        self._left -= len(data)
        return None if self._left else self._answer()

    def ended(self) -> HttpAnswer | None:
        """The connection has ended: the answer, if that is how it is to end."""
        return self._answer() if self._head is not None and self._left is None else None

    def _answer(self) -> HttpAnswer:
        assert self._head is not None
        return HttpAnswer(self._status, self._head, bytes(self._body))

    def _take(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > self._limit:
            raise TooLarge("the answer is larger than allowed")

    def _pass_over(self) -> None:
        self._spared -= 1
        if self._spared < 0:
            raise HttpFailure("its answer does not begin, or does not end")

    # -- the head

    def _read_head(self) -> bool:
        """Whether the head of the answer is complete; what follows it is then in the buffer."""
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD:
                raise HttpFailure("the header of its answer is too large")
            if not end:
                return False
            self._buffer = rest
            status_line, *lines = head.split(b"\r\n")
            status = _STATUS.fullmatch(status_line)
            if status is None:
                raise HttpFailure("its answer is not HTTP")
            fields = _fields(lines)
            self._status = int(status[2])
            if self._status >= 200:
                self._frame(fields, status[1] == b"1")
                self._head = fields
                return True
            if self._status == 101:
                raise HttpFailure("it changes the protocol, which nobody asked for")
            self._pass_over()

    def _frame(self, fields: Mapping[str, str], persistent: bool) -> None:
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        self.kept = persistent and "close" not in fields.get("connection", "").lower()
        if self._status in (204, 304):
            return
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise HttpFailure("it is not clear where its answer ends")
            self._part = _Part.SIZE
        elif length is None:
            self._left, self.kept = None, False
        else:
            self._left = int(length)
            if self._left > self._limit:
                raise TooLarge(f"an answer of {length} bytes, at most {self._limit} are taken")

    # -- a body in chunks

    def _chunks(self, data: bytes) -> HttpAnswer | None:
        at = 0
        while at < len(data):
            if self._part is _Part.DATA:
                assert self._left is not None
                piece = data[at : at + self._left]
                self._take(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.END
                continue
            end = data.find(b"\r\n", at, at + MAX_CHUNK_LINE)
            if end < 0:
                if len(data) - at >= MAX_CHUNK_LINE:
                    raise HttpFailure("a chunk of its answer is not HTTP")
                break
            last = self._chunk_line(data[at:end])
            at = end + 2
            if last:
                self.kept = self.kept and at == len(data)
                return self._answer()
        self._buffer = data[at:]
        return None

    def _chunk_line(self, line: bytes) -> bool:
        """Take a line between chunks; whether it ends the body."""
        if self._part is _Part.TRAILER:
            self._pass_over()
            return not line
        if self._part is _Part.END and not line:
            self._part = _Part.SIZE
            return False
        size = _CHUNK.fullmatch(line) if self._part is _Part.SIZE else None
        if size is None:
            raise HttpFailure("a chunk of its answer is not HTTP")
        self._left = int(size[1], 16)
        self._part = _Part.DATA if self._left else _Part.TRAILER
        return False


def _fields(lines: list[bytes]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HttpFailure("a header field of its answer is not HTTP")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        if name == "content-length" and not _LENGTH.fullmatch(field[2]):
            raise HttpFailure("it is not clear where its answer ends")
        if name in ("content-length", "transfer-encoding") and fields.get(name, value) != value:
            raise HttpFailure("it is not clear where its answer ends")
        fields[name] = value
    return fields
