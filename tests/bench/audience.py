"""Live readers: people who hold a long-poll or a WebSocket open and note when something reaches them."""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from urllib.parse import quote

from tests.bench.people import V3, Person
from tests.bench.websocket import Socket

NEXT_BATCH = re.compile(rb'"next_batch":\s*"([^"]+)"')


class Audience(ABC):
    """Readers of one room. ``expect`` starts to look for a marker, ``arrived`` waits until all saw it."""

    def __init__(self, people: list[Person]) -> None:
        self.people = people
        self._tasks: list[asyncio.Task[None]] = []
        self._marker = b""
        self._since = 0.0
        self._missing: set[Person] = set()
        self._all = asyncio.Event()
        self.delays_ms: list[float] = []
        self.failures: list[str] = []

    def expect(self, marker: bytes) -> None:
        """From now on look for `marker` in what arrives; the clock starts."""
        self._marker, self._since = marker, time.perf_counter()
        self._missing = set(self.people)
        self._all.clear()

    async def arrived(self) -> int:
        """Wait until every reader has it, 30 s at most; gives the number of those who have it."""
        try:
            await asyncio.wait_for(self._all.wait(), 30)
        except TimeoutError:
            self.failures.append(f"{len(self._missing)} of {len(self.people)} did not get {self._marker!r}")
        return len(self.people) - len(self._missing)

    def _saw(self, person: Person, data: bytes) -> None:
        if person in self._missing and self._marker in data:
            self.delays_ms.append((time.perf_counter() - self._since) * 1000)
            self._missing.discard(person)
            if not self._missing:
                self._all.set()

    async def start(self) -> None:
        """Everyone connects and is up to date."""
        for person in self.people:
            filter_ = {"room": {"timeline": {"limit": 1}, "state": {"lazy_load_members": True}}}
            since = (await person.sync(filter=filter_))["next_batch"]
            self._tasks.append(asyncio.create_task(self._read(person, since)))
        await asyncio.sleep(1)

    @abstractmethod
    async def _read(self, person: Person, since: str) -> None:
        """Follow from `since` until cancelled, and show what comes to ``_saw``."""

    async def stop(self) -> None:
        """Everyone leaves."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.failures += [repr(r) for r in results if isinstance(r, Exception)]


class LongPollers(Audience):
    """Readers over ``/sync`` with a timeout of 30 s."""

    async def _read(self, person: Person, since: str) -> None:
        connection = person.server.connection(person.token)
        try:
            while True:
                path = f"{V3}/sync?timeout=30000&set_presence=offline&since={quote(since, safe='')}"
                data = await connection.bytes("GET", path)
                found = NEXT_BATCH.search(data)
                assert found is not None
                since = found[1].decode()
                self._saw(person, data)
        finally:
            connection.close()


class SocketReaders(Audience):
    """Readers over the WebSocket, who acknowledge what they got every 10 s."""

    async def _read(self, person: Person, since: str) -> None:
        server = person.server
        socket = await Socket.open(server.host, server.port, person.token, since, set_presence="offline")
        acknowledged = time.monotonic()
        try:
            while True:
                data = await socket.receive()
                self._saw(person, data)
                found = NEXT_BATCH.search(data)
                if found is not None and time.monotonic() - acknowledged > 10:
                    acknowledged = time.monotonic()
                    socket.send({"type": "ack", "next_batch": found[1].decode()})
        finally:
            socket.close()
