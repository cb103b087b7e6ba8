"""Accounts and rooms for the rows to work with, made through the Client-Server API."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import quote

from tests.bench.connection import Connection
from tests.bench.servers import Server

V3 = "/_matrix/client/v3"
AT_ONCE = 8
T = TypeVar("T")
_numbers = itertools.count(1)


class Person:
    """A registered user with one device and a connection of its own."""

    def __init__(self, server: Server, user_id: str, device_id: str, token: str) -> None:
        self.server, self.user_id, self.device_id, self.token = server, user_id, device_id, token
        self.connection = server.connection(token)
        self._transactions = itertools.count(1)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """A call below /_matrix/client/v3."""
        return await self.connection.call(method, V3 + path, body)

    async def send(self, room_id: str, text: str) -> str:
        """Send a text message, return its event id."""
        path = f"/rooms/{quote(room_id)}/send/m.room.message/t{next(self._transactions)}"
        return (await self.call("PUT", path, {"msgtype": "m.text", "body": text}))["event_id"]

    async def create_room(self, **options: object) -> str:
        """Create a room, return its id. The preset is ``public_chat`` unless given."""
        return (await self.call("POST", "/createRoom", {"preset": "public_chat"} | options))["room_id"]

    async def join(self, room_id: str) -> None:
        """Join a room that lets this user in."""
        await self.call("POST", f"/rooms/{quote(room_id)}/join", {})

    async def sync(self, since: str | None = None, filter: object = None) -> dict[str, Any]:
        """One ``/sync`` that does not wait."""
        return json.loads(await self.sync_bytes(since, filter))

    async def sync_bytes(self, since: str | None = None, filter: object = None) -> bytes:
        """One ``/sync`` that does not wait, as it comes."""
        path = f"{V3}/sync?timeout=0&set_presence=offline"
        if since is not None:
            path += "&since=" + quote(since, safe="")
        if filter is not None:
            path += "&filter=" + quote(filter if isinstance(filter, str) else json.dumps(filter), safe="")
        return await self.connection.bytes("GET", path)


async def in_parallel(
    items: Iterable[T], action: Callable[[T], Awaitable[object]], at_once: int = AT_ONCE
) -> list[Any]:
    """Run `action` for each item, some at once; results in order."""
    slots = asyncio.Semaphore(at_once)

    async def limited(item: T) -> object:
        async with slots:
            return await action(item)

    return await asyncio.gather(*(limited(item) for item in items))


async def register(server: Server, count: int, prefix: str = "u") -> list[Person]:
    """New users."""

    async def one(connection: Connection, number: int) -> Person:
        auth = {"type": "m.login.dummy"}
        body = {"username": f"{prefix}{number}", "password": "a long password", "auth": auth}
        answer = await connection.call("POST", f"{V3}/register", body)
        return Person(server, answer["user_id"], answer["device_id"], answer["access_token"])

    connections = [server.connection() for _ in range(min(AT_ONCE, count))]
    waiting = asyncio.Queue[Connection]()
    for connection in connections:
        waiting.put_nowait(connection)

    async def next_one(number: int) -> Person:
        connection = await waiting.get()
        try:
            return await one(connection, number)
        finally:
            waiting.put_nowait(connection)

    people = await in_parallel([next(_numbers) for _ in range(count)], next_one)
    for connection in connections:
        connection.close()
    return people
