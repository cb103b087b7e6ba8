"""Rows about other servers: joining large rooms, receiving, sending to many, resolving forks."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from federation.rules.event import Event
from tests.bench.federating import FederatingFolkmoot, FederatingSynapse
from tests.bench.generated import GeneratedRoom
from tests.bench.measure import COARSE_BELOW, Row, Timer, measure
from tests.bench.neighbours import Neighbours
from tests.bench.people import Person, register
from tests.bench.process_tree import cpu_seconds, peak_rss_bytes, reset_peak_rss, rss_bytes

LARGE, LARGE_STATE = 2000, 5000
HUGE = 50_000
DESTINATIONS = 200
EVENTS = 1000


@dataclass
class Side:
    """A server under test, the servers around it, and a room that a Synapse holds, if there is one."""

    server: FederatingFolkmoot | FederatingSynapse
    neighbours: Neighbours
    held: tuple[GeneratedRoom, str] | None = None
    """The room and the name of the Synapse."""


@dataclass
class Bystander:
    """Somebody with a room of their own who looks for news again and again while the server does something else."""

    person: Person
    since: str
    longest: float = 0.0
    looks: int = 0
    cpu_each: float = 0.0
    _task: "asyncio.Task[None] | None" = field(default=None, repr=False)

    @classmethod
    async def settle(cls, server: FederatingFolkmoot | FederatingSynapse) -> "Bystander":
        """Register, and find out what one look costs."""
        (person,) = await register(server, 1, "bystander")
        await person.create_room()
        one = cls(person, (await person.sync())["next_batch"])
        for _ in range(20):
            await one._look()
        before = cpu_seconds(server.roots)
        for _ in range(200):
            await one._look()
        one.cpu_each = (cpu_seconds(server.roots) - before) / 200
        one.longest, one.looks = 0.0, 0
        return one

    async def _look(self) -> None:
        began = time.perf_counter()
        await self.person.sync_bytes(self.since)
        self.longest = max(self.longest, time.perf_counter() - began)
        self.looks += 1

    def begin(self) -> None:
        """Look every 25 ms from now on."""

        async def forever() -> None:
            while True:
                await self._look()
                await asyncio.sleep(0.025)

        self._task = asyncio.create_task(forever())

    async def end(self) -> None:
        """Stop. Raises what went wrong meanwhile."""
        assert self._task is not None
        self._task.cancel()
        (outcome,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome


async def _join(person: Person, room: GeneratedRoom, via: str) -> None:
    await person.call("POST", f"/join/{quote(room.room_id)}?server_name={quote(via)}&via={quote(via)}", {})


async def _read_members(person: Person, room: GeneratedRoom) -> None:
    """Until the person is told of all members."""
    told = len((await person.call("GET", f"/rooms/{quote(room.room_id)}/members?membership=join"))["chunk"])
    expected = sum(type_ == "m.room.member" for type_, _ in room.state)
    assert told >= expected, f"{told} members instead of {expected}"


async def measure_join(side: Side, name: str, room: GeneratedRoom, via: str) -> tuple[Row, Person]:
    """A join of one person, until the whole state can be read. Reading it and the bystander's looks are taken off."""
    server = side.server
    (person,) = await register(server, 1, "joiner")
    bystander = await Bystander.settle(server)
    pid = server.roots[0]
    before = rss_bytes(pid)
    reset_peak_rss(pid)
    bystander.begin()
    cpu, began = cpu_seconds(server.roots), time.perf_counter()
    await _join(person, room, via)
    answered = time.perf_counter() - began
    longest, peak = bystander.longest, peak_rss_bytes(pid)
    await _read_members(person, room)
    seconds = time.perf_counter() - began
    await bystander.end()
    cpu = cpu_seconds(server.roots) - cpu
    peak_reading = peak_rss_bytes(pid)
    reading = cpu_seconds(server.roots)
    await _read_members(person, room)
    cpu -= cpu_seconds(server.roots) - reading + bystander.looks * bystander.cpu_each
    row = Row(name, 1, seconds, cpu * 1000, coarse=cpu < COARSE_BELOW)
    row.notes["seconds until the join is answered"] = answered
    row.notes["seconds until the whole state is read"] = seconds
    row.notes["longest sync of somebody else until the join is answered, ms"] = longest * 1000
    row.notes["longest sync of somebody else until the whole state is read, ms"] = bystander.longest * 1000
    row.notes["RSS before, MB"] = before / 1e6
    row.notes["RSS at its peak until the join is answered, MB"] = peak / 1e6
    row.notes["RSS at its peak until the whole state is read, MB"] = peak_reading / 1e6
    return row, person


async def join_large(side: Side, scale: float) -> list[Row]:
    """2,000 members on 50 servers, 5,000 state events, held by servers that answer at once."""
    members, state = int(LARGE * scale), int(LARGE_STATE * scale)
    room = side.neighbours.room(min(50, members), members, state - members)
    name = f"join over federation, {members} members, {state} state events"
    row, _ = await measure_join(side, name, room, room.servers[0])
    return [row]


async def join_held(side: Side, scale: float) -> list[Row]:
    """A room of that size held by a Synapse."""
    if side.held is None:
        return []
    room, via = side.held
    row, _ = await measure_join(side, f"the same, held by Synapse ({len(room.state)} state events)", room, via)
    return [row]


async def huge(side: Side, scale: float) -> list[Row]:
    """A room of 50,000 members on 200 servers: joining it, then forks in its state."""
    members = int(HUGE * scale)
    room = side.neighbours.room(min(200, members), members)
    row, _ = await measure_join(side, f"join over federation, {members} members", room, room.servers[0])
    return [row, await _forks(side, room, members)]


async def _forks(side: Side, room: GeneratedRoom, members: int) -> Row:
    """Two branches that disagree on the topic, and an event that ties them up, each sent by itself."""
    origin = room.servers[1]
    sender = room.user(1)

    async def one(number: int, timer: Timer) -> None:
        branches = [room.event(sender, "m.room.topic", {"topic": f"Topic {number} {side_}"}, "") for side_ in "ab"]
        ids = [branch.event_id for branch in branches]
        tie = room.event(sender, "m.room.message", {"msgtype": "m.text", "body": "tied up"}, after=ids)
        for event in branches:
            _accepted(await side.neighbours.send(side.server, origin, [event]))
        _accepted(await timer.time(side.neighbours.send(side.server, origin, [tie])))  # type: ignore[arg-type]
        room.follow(tie)

    async def work(timer: Timer) -> int:
        for number in range(20):
            await one(number, timer)
        return 20

    await one(-1, Timer())
    return await measure(side.server, f"fork of the state and its end, {members} members", work)


def _accepted(results: dict[str, dict[str, object]]) -> None:
    assert results and not any(results.values()), results


async def receive(side: Side, scale: float) -> list[Row]:
    """Messages that come in from one server, 50 in a transaction, then one by one."""
    room = side.neighbours.room(10, 100)
    (person,) = await register(side.server, 1, "listener")
    await _join(person, room, room.servers[0])
    count = max(100, int(EVENTS * scale))

    def make(number: int) -> list[Event]:
        events = []
        for n in range(number):
            content = {"msgtype": "m.text", "body": f"message {n} of a usual length"}
            event = room.event(room.user(10 * (n % 10) + 1), "m.room.message", content)
            room.follow(event)
            events.append(event)
        return events

    rows = []
    for size, name in ((50, "receiving an event, 50 in a transaction"), (1, "receiving an event, one in a transaction")):
        await _deliver(side, room, make(size * 2), size, Timer())
        events = make(count)

        async def work(timer: Timer) -> int:
            await _deliver(side, room, events, size, timer)  # noqa: B023
            return len(events)  # noqa: B023

        rows.append(await measure(side.server, name, work))
    return rows


async def _deliver(side: Side, room: GeneratedRoom, events: list[Event], size: int, timer: Timer) -> None:
    for start in range(0, len(events), size):
        part = events[start : start + size]
        results = await timer.time(side.neighbours.send(side.server, room.servers[1], part))
        _accepted(results)  # type: ignore[arg-type]


async def send(side: Side, scale: float) -> list[Row]:
    """Messages of one of our users in a room with 200 other servers; an operation is one event at one of them."""
    count = max(10, int(DESTINATIONS * scale))
    room = side.neighbours.room(count, count)
    (person,) = await register(side.server, 1, "speaker")
    await _join(person, room, room.servers[0])
    events = max(5, int(20 * scale))

    async def work(timer: Timer) -> int:
        async def one(number: int) -> None:
            event_id = await person.send(room.room_id, f"message {number} of a usual length")
            await side.neighbours.all_have([event_id], room.servers)

        for number in range(events):
            await timer.time(one(number))
        return events * count

    await side.neighbours.all_have([await person.send(room.room_id, "first")], room.servers)
    return [await measure(side.server, f"sending an event, to each of {count} servers", work)]


ROWS: dict[str, Callable[[Side, float], Awaitable[list[Row]]]] = {
    "receive": receive,
    "send-200": send,
    "join-large": join_large,
    "join-held": join_held,
    "huge": huge,
}


async def hold(synapse: FederatingSynapse, neighbours: Neighbours, scale: float) -> tuple[GeneratedRoom, str]:
    """Have a Synapse join a room of ``join_large``'s size, so that others can join through it."""
    members, state = int(LARGE * scale), int(LARGE_STATE * scale)
    room = neighbours.room(min(50, members), members, state - members)
    (person,) = await register(synapse, 1, "holder")
    await _join(person, room, room.servers[0])
    await _read_members(person, room)
    return room, synapse.server_name
