"""A room is joined whose members arrive behind, and the server is killed again and again while they do. Whole processes."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.bench.federating import FederatingFolkmoot
from tests.bench.neighbours import Neighbours
from tests.bench.people import register
from tests.bench.servers import free_port

MEMBERS = 3000
MOMENTS = (
    ("/v1/state/", 0, 0.0),
    ("/v1/state/", 9, 0.0),
    ("/v1/state/", 18, 0.0),
    ("/v1/state/", 18, 0.25),
    ("/v1/state_ids/", 0, 0.1),
    ("/v1/state_ids/", 0, 0.25),
)
"""When the server is killed: what it asks for, the piece of the answer that comes next, and seconds after that. An answer of
state has 18 pieces and some; behind the last one events are checked and stored, and the members come in."""


class Killer:
    """Kills the server at its next moment; with none left, everything takes its course."""

    def __init__(self, server: FederatingFolkmoot) -> None:
        self._server = server
        self._moments = list(MOMENTS)
        self._due: asyncio.TimerHandle | None = None
        self.killed = asyncio.Event()
        self.kills = 0

    async def before_piece(self, path: str, number: int) -> None:
        """Asked by the neighbours."""
        if self._moments and self._moments[0][0] in path and self._moments[0][1] == number:
            _, _, seconds = self._moments.pop(0)
            if seconds:
                self._due = asyncio.get_running_loop().call_later(seconds, self._kill)
            else:
                self._kill()

    def stop(self) -> None:
        """No more kills: the join may have been complete before the last one was due."""
        self._moments.clear()
        if self._due is not None:
            self._due.cancel()

    def _kill(self) -> None:
        self.kills += 1
        self._server.kill()
        self.killed.set()


async def until_killed(killed: asyncio.Event, work: Coroutine[Any, Any, int]) -> int | None:
    """What the work gives, None if the server was killed meanwhile."""
    working, dead = asyncio.create_task(work), asyncio.create_task(killed.wait())
    await asyncio.wait((working, dead), timeout=60, return_when=asyncio.FIRST_COMPLETED)
    if killed.is_set():
        killed.clear()
        await asyncio.gather(working, return_exceptions=True)
        return None
    dead.cancel()
    return await working


async def scene(directory: Path) -> None:
    server = FederatingFolkmoot(directory, free_port())
    killer = Killer(server)
    async with Neighbours(directory) as neighbours:
        neighbours.omits, neighbours.before_piece = True, killer.before_piece
        room = neighbours.room(3, MEMBERS)
        said: list[str] = []
        try:
            await server.start()
            (person,) = await register(server, 1, "joiner")
            await person.call("POST", f"/join/{quote(room.room_id)}?via={quote(room.servers[0])}", {})

            async def go_on() -> int:
                """Start, say something, and count the joined members, once all of them can be told."""
                await server.start()
                person.connection = server.connection(person.token)
                said.append(await person.send(room.room_id, f"after kill {killer.kills}"))
                return len((await person.call("GET", f"/rooms/{quote(room.room_id)}/joined_members"))["joined"])

            await asyncio.wait_for(killer.killed.wait(), 30)
            killer.killed.clear()
            count: int | None = None
            while count is None:
                count = await until_killed(killer.killed, go_on())
            killer.stop()
            assert count == MEMBERS + 1 and killer.kills >= 4
            heard = room.event(room.user(1), "m.room.message", {"msgtype": "m.text", "body": "hello"}, after=[said[-1]])
            results = await neighbours.send(server, room.servers[1], [heard])
            assert results == {heard.event_id: {}}
            path = f"/rooms/{quote(room.room_id)}/messages?dir=b&limit=20"
            chunk = (await person.call("GET", path))["chunk"]
            there = [event["event_id"] for event in chunk]
            assert [event_id for event_id in there if event_id in said] == said[::-1] and there[0] == heard.event_id
            await neighbours.all_have(said, room.servers)
        finally:
            server.stop()


@pytest.mark.timeout(180)
def test_i09_a_join_is_completed_however_often_the_server_is_killed(tmp_path: Path) -> None:
    asyncio.run(scene(tmp_path))
