"""An HTTP/1.1 client that costs next to nothing: a keep-alive connection, one request at a time."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any


class HttpError(Exception):
    """The server answered with another status than 2xx."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        super().__init__(f"{method} {path[:200]}: {status} {body[:300]!r}")
        self.status = status
        self.body = body


class _Protocol(asyncio.Protocol):
    """Collects one answer at a time; HEAD and 1xx answers do not occur here."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        if (parsed := _parse(self._data)) is None or self.answer is None:
            return
        status, body, used, keep = parsed
        del self._data[:used]
        if not keep:
            self._close()
        answer, self.answer = self.answer, None
        if not answer.done():
            answer.set_result((status, body))

    def connection_lost(self, problem: Exception | None) -> None:
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(problem or ConnectionResetError("closed by the server"))
        self.answer = None

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()
            self.transport = None


def _parse(data: bytearray) -> tuple[int, bytes, int, bool] | None:
    """Status, body, bytes used and whether the connection stays, or None while the answer is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[:end]).lower()
    status, keep = int(head[9:12]), b"connection: close" not in head
    start = end + 4
    if b"transfer-encoding: chunked" in head:
        body = bytearray()
        while True:
            line = data.find(b"\r\n", start)
            if line < 0:
                return None
            size = int(data[start:line].split(b";")[0], 16)
            if len(data) < line + 4 + size:
                return None
            body += data[line + 2 : line + 2 + size]
            start = line + 4 + size
            if size == 0:
                return status, bytes(body), start, keep
    at = head.find(b"\r\ncontent-length:")
    length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    if len(data) < start + length:
        return None
    return status, bytes(data[start : start + length]), start + length, keep


class Connection:
    """One connection to the server at `host` and `port`, opened when first needed, and again when lost."""

    def __init__(
        self, host: str, port: int, token: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.host, self.port, self.token = host, port, token
        self._tls = tls
        self._protocol: _Protocol | None = None

    async def raw(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request (`body` becomes JSON) and give status and body of the answer."""
        protocol = self._protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_connection(_Protocol, self.host, self.port, ssl=self._tls)
            self._protocol = protocol
        assert protocol.transport is not None
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        content = b""
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()  # as clients and servers write it
            lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        elif method != "GET":
            lines.append("Content-Length: 0")
        protocol.answer = asyncio.get_running_loop().create_future()
        answer = protocol.answer
        protocol.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        return await answer

    async def bytes(self, method: str, path: str, body: object = None) -> bytes:
        """The body of a 2xx answer. Raises HttpError for any other."""
        status, answer = await self.raw(method, path, body)
        if not 200 <= status < 300:
            raise HttpError(method, path, status, answer)
        return answer

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a 2xx answer. Raises HttpError for any other."""
        return json.loads(await self.bytes(method, path, body))

    def close(self) -> None:
        """Close; an answer still awaited fails."""
        if self._protocol is not None and self._protocol.transport is not None:
            self._protocol.transport.abort()
        self._protocol = None
