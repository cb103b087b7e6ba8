"""A WebSocket client (RFC 6455) as light as the HTTP one: text frames, no extensions."""

import asyncio
import base64
import json
import os
import struct
from typing import Any

PATH = "/_matrix/client/unstable/io.folkmoot.websocket/stream"


class Socket:
    """An open connection that said hello and was welcomed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.welcome: dict[str, Any] = {}

    @classmethod
    async def open(cls, host: str, port: int, token: str, since: str | None, **hello: object) -> "Socket":
        """Connect and say hello. Raises ConnectionError when the server does not take it."""
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 24)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: m.json\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionError(head[:200].decode(errors="replace"))
        socket = cls(reader, writer)
        first: dict[str, Any] = {"type": "hello", "access_token": token, **hello}
        if since is not None:
            first["since"] = since
        socket.send(first)
        socket.welcome = json.loads(await socket.receive())
        if socket.welcome.get("type") != "welcome":
            raise ConnectionError(str(socket.welcome))
        return socket

    def send(self, frame: object) -> None:
        """Send one text frame of JSON."""
        self._write(1, json.dumps(frame).encode())

    def _write(self, opcode: int, data: bytes) -> None:
        if len(data) < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | len(data))
        elif len(data) < 1 << 16:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, len(data))
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, len(data))
        self._writer.write(head + b"\0\0\0\0" + data)  # a mask of zeros leaves the data as they are

    async def receive(self) -> bytes:
        """The next text frame. Raises ConnectionError when the socket was closed."""
        message = b""
        while True:
            first, length = await self._reader.readexactly(2)
            if length == 126:
                (length,) = struct.unpack("!H", await self._reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
            data = await self._reader.readexactly(length)
            opcode = first & 15
            if opcode == 9:
                self._write(10, data)
            elif opcode == 8:
                raise ConnectionError(f"closed: {data[2:].decode(errors='replace')}")
            elif opcode in (0, 1):
                message += data
                if first & 0x80:
                    return message

    def close(self) -> None:
        """Drop the connection."""
        self._writer.close()
