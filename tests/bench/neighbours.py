"""Hundreds of other servers, ``127.0.0.N:port``, behind one listening socket: they hold generated rooms and take whatever
they are sent. What they use of the CPU is the benchmark's own and does not count."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from federation.rules.event import Event
from federation.rules.signing import SigningKey
from federation.wire import key_answers, xmatrix
from tests.bench.connection import Connection, HttpError
from tests.bench.federating import FederatingFolkmoot, FederatingSynapse, any_certificate, make_certificate
from tests.bench.generated import GeneratedRoom
from tests.bench.servers import free_port

PIECE = 1 << 16
HOUR_MS = 3_600_000
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HOST = re.compile(rb"\r\nhost: *([^\r]+)", re.IGNORECASE)


class Neighbours:
    """The servers and their rooms."""

    def __init__(self, directory: Path) -> None:
        self._port = free_port()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*make_certificate(directory))
        self._keys: dict[str, SigningKey] = {}
        self._listening: asyncio.Server | None = None
        self._transactions = itertools.count(int(time.time() * 1000))
        self._connections: dict[str, Connection] = {}
        self._awaited: dict[str, set[str]] = {}
        self._arrived = asyncio.Event()
        self.rooms: dict[str, GeneratedRoom] = {}
        self.omits = False
        """Whether members are omitted for who asks for that."""
        self.before_piece: Callable[[str, int], Awaitable[None]] | None = None
        """Awaited before each piece of an answer: told the path and the number of the piece."""

    async def __aenter__(self) -> "Neighbours":
        self._listening = await asyncio.start_server(self._serve, "0.0.0.0", self._port, ssl=self._tls)
        return self

    async def __aexit__(self, *problem: object) -> None:
        for connection in self._connections.values():
            connection.close()
        assert self._listening is not None
        self._listening.close()

    def names(self, count: int) -> list[str]:
        """Names of so many servers."""
        return [f"127.0.{number // 250}.{number % 250 + 1}:{self._port}" for number in range(count)]

    def key_of(self, name: str) -> SigningKey:
        """A server's key."""
        if name not in self._keys:
            seed = hashlib.sha256(name.encode()).digest()
            self._keys[name] = SigningKey.from_seed(seed, name)
        return self._keys[name]

    def room(self, servers: int, members: int, others: int = 0) -> GeneratedRoom:
        """A new room that can be joined through the first of its servers."""
        made = GeneratedRoom(self.names(servers), self.key_of, members, others)
        self.rooms[made.room_id] = made
        return made

    # -- what they send

    async def send(self, to: "FederatingFolkmoot | FederatingSynapse", origin: str, events: list[Event]) -> dict[str, Any]:
        """One transaction with these events; the result for each of them."""
        uri = f"/_matrix/federation/v1/send/{next(self._transactions)}"
        content = {
            "origin": origin,
            "origin_server_ts": int(time.time() * 1000),
            "pdus": [event.pdu for event in events],
            "edus": [],
        }
        header = xmatrix.build(self.key_of(origin), "PUT", uri, origin, to.server_name, content)
        connection = self._connections.get(to.server_name)
        if connection is None:
            connection = Connection("localhost", to.federation_port, tls=any_certificate())
            self._connections[to.server_name] = connection
        status, body = await connection.raw("PUT", uri, content, {"Authorization": header})
        if status != 200:
            raise HttpError("PUT", uri, status, body)
        results: dict[str, Any] = json.loads(body)["pdus"]
        return results

    async def all_have(self, event_ids: list[str], servers: list[str]) -> None:
        """Wait until each of the servers was sent each of the events. TimeoutError after a minute."""
        awaited = set(event_ids)
        async with asyncio.timeout(60):
            while not all(awaited <= self._awaited.get(name, set()) for name in servers):
                self._arrived.clear()
                await self._arrived.wait()

    # -- what they answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Cancelled: the benchmark is over while servers still hold connections.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
                length, host = LENGTH.search(head), HOST.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                url = urlsplit(target)
                query = dict(parse_qsl(url.query))
                status, pieces = self._answer(host[1].decode() if host else "", method, url.path, query, body)
                size = sum(map(len, pieces))
                writer.write(
                    b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, size)
                )
                for number, piece in enumerate(pieces):
                    if self.before_piece is not None:
                        await self.before_piece(url.path, number)
                    for start in range(0, len(piece), PIECE):
                        writer.write(piece[start : start + PIECE])
                        await writer.drain()
        writer.close()

    def _answer(
        self, name: str, method: str, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, list[bytes]]:
        parts = [unquote(part) for part in path.split("/")[3:]]
        match method, parts:
            case "GET", ["v2", "server"]:
                now = int(time.time() * 1000)
                return _json(key_answers.make(name, [self.key_of(name)], {}, now + 24 * HOUR_MS))
            case "GET", ["v1", "make_join", room_id, user_id] if room_id in self.rooms:
                return _json(self.rooms[room_id].template(user_id))
            case "PUT", ["v2", "send_join", room_id, _] if room_id in self.rooms:
                omit = self.omits and query.get("omit_members") == "true"
                return 200, self.rooms[room_id].send_join(json.loads(body), omit)
            case "GET", ["v1", "state_ids", room_id] if room_id in self.rooms:
                return _json(self.rooms[room_id].state_ids(query["event_id"]))
            case "GET", ["v1", "state", room_id] if room_id in self.rooms:
                return 200, self.rooms[room_id].state_before(query["event_id"])
            case "PUT", ["v1", "send", _]:
                return _json(self._take(name, json.loads(body)))
            case "POST", ["v1", "get_missing_events", _]:
                return _json({"events": []})
        return 404, [b'{"errcode":"M_NOT_FOUND","error":"Not here"}']

    def _take(self, name: str, transaction: dict[str, Any]) -> dict[str, Any]:
        results = {}
        for pdu in transaction.get("pdus", []):
            room = self.rooms.get(pdu["room_id"])
            if room is not None:
                event_id = Event.from_pdu(pdu, room.version).event_id
                self._awaited.setdefault(name, set()).add(event_id)
                results[event_id] = {}
        self._arrived.set()
        return {"pdus": results}


def _json(value: object) -> tuple[int, list[bytes]]:
    return 200, [json.dumps(value, separators=(",", ":")).encode()]
