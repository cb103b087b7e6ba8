"""Answers on the wire: one block of bytes for head and body.

What stays the same between answers (status line, CORS, content type) is joined once for each status.
"""

import zlib
from collections.abc import Mapping
from http import HTTPStatus

from homeserver.web.call import Answer
from homeserver.web.router import CORS_HEADERS

_CORS = "".join(f"{name}: {value}\r\n" for name, value in CORS_HEADERS.items())
_BODILESS = frozenset((204, 304))


class AnswerWriter:
    """Encodes answers for one listener.

    `date` is the block with the Date field; whoever has the clock renews it each second.
    """

    def __init__(self, compress_from: int | None = None) -> None:
        """`compress_from`: bytes from which JSON and text bodies are compressed for clients that take
        gzip.
        """
        self.date = b""
        self._compress_from = compress_from
        self._json_heads: dict[int, bytes] = {}

    def wire(self, answer: Answer, method: str, accept_encoding: str, connection: bytes) -> bytes:
        """The whole answer. `connection` is the Connection field as a line, or empty. Raises ValueError or
        TypeError for what cannot be encoded (a header with a line break, a body that JSON does not know)."""
        body = answer.encoded()
        fields = b""
        if self._compress_from is not None and len(body) >= self._compress_from and compressible(answer):
            fields = b"Vary: Accept-Encoding\r\n"
            if takes_gzip(accept_encoding):
                body = gzip(body)
                fields = b"Vary: Accept-Encoding\r\nContent-Encoding: gzip\r\n"
        if answer.headers:
            fields += header_block(answer.headers)
        if answer.status in _BODILESS:
            return b"%b%b%b%b\r\n" % (status_block(answer.status), fields, self.date, connection)
        if answer.content_type == "application/json":
            head = self._json_heads.get(answer.status)
            if head is None:
                head = self._json_heads[answer.status] = content_block(answer.status, answer.content_type)
        else:
            head = content_block(answer.status, answer.content_type)
        length = len(body)
        return b"%b%d\r\n%b%b%b\r\n%b" % (
            head,
            length,
            fields,
            self.date,
            connection,
            b"" if method == "HEAD" else body,
        )


def status_block(status: int) -> bytes:
    """Status line and the fields that every answer carries."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    return f"HTTP/1.1 {status} {phrase}\r\nServer: folkmoot\r\n{_CORS}".encode("ascii")


def content_block(status: int, content_type: str) -> bytes:
    """`status_block` up to the number in Content-Length."""
    return status_block(status) + header_block({"Content-Type": content_type}) + b"Content-Length: "


def header_block(headers: Mapping[str, str]) -> bytes:
    """Header fields as lines. ValueError for a line break or NUL, which would end the field early."""
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if text.count("\n") != len(headers) or text.count("\r") != len(headers) or "\0" in text:
        raise ValueError("a header field holds a control character")
    return text.encode("latin-1")


def compressible(answer: Answer) -> bool:
    """Whether compressing may help: JSON and text, not yet encoded."""
    if answer.headers and "Content-Encoding" in answer.headers:
        return False
    return answer.content_type.startswith(("application/json", "text/"))


def takes_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding value has gzip with a quality above 0 (RFC 9110 section 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def gzip(body: bytes) -> bytes:
    """The gzip format (RFC 1952) at the fastest level: on JSON the slower ones gain a tenth for twice the
    time.
    """
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()
