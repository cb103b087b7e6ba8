"""Rows about requests that are answered at once: whoami, send, sync, messages, join."""

import asyncio
from urllib.parse import quote

from tests.bench.measure import Row, Timer, measure
from tests.bench.people import V3, in_parallel, register
from tests.bench.process_tree import disk_bytes
from tests.bench.servers import Server


async def whoami(server: Server, scale: float) -> list[Row]:
    """``GET /account/whoami`` over 8 connections."""
    people = await register(server, 8)
    each = max(50, int(2500 * scale))

    async def work(timer: Timer) -> int:
        async def ask(connection: object) -> None:
            for _ in range(each):
                await timer.time(connection.bytes("GET", f"{V3}/account/whoami"))  # type: ignore[attr-defined]

        await asyncio.gather(*(ask(person.connection) for person in people))
        return 8 * each

    await work(Timer())
    return [await measure(server, "whoami, 8 connections", work)]


async def send(server: Server, scale: float) -> list[Row]:
    """32 people, each sending to a room of their own, as fast as the server answers."""
    people = await register(server, 32)
    rooms = await in_parallel(people, lambda person: person.create_room())
    each = max(5, int(100 * scale))

    async def work(timer: Timer) -> int:
        async def talk(number: int) -> None:
            for n in range(each):
                await timer.time(people[number].send(rooms[number], f"message {n} of a usual length"))

        await asyncio.gather(*(talk(number) for number in range(32)))
        return 32 * each

    await work(Timer())
    await asyncio.sleep(1)
    before = disk_bytes(server.data)
    row = await measure(server, "send, 32 senders in 32 rooms", work)
    await asyncio.sleep(1)
    row.notes["disk bytes per event"] = (disk_bytes(server.data) - before) / row.operations
    return [row]


async def initial_sync(server: Server, scale: float) -> list[Row]:
    """First sync of an account in 100 rooms of 25 messages, all of them wanted; then small syncs of it."""
    reader, writer = await register(server, 2)
    count = max(10, int(100 * min(scale, 1)))

    async def furnish(_: int) -> str:
        room_id = await writer.create_room(name="A room with a name")
        await reader.join(room_id)
        return room_id

    rooms = await in_parallel(range(count), furnish, 1)

    async def fill(room_id: str) -> None:
        for n in range(25):
            await writer.send(room_id, f"message {n} of a usual length")

    for room_id in rooms:
        await fill(room_id)
    everything = {"room": {"timeline": {"limit": 25}}}
    token = ""

    async def first(timer: Timer) -> int:
        nonlocal token
        for _ in range(times):
            answer = await reader.sync(filter=everything)
            assert len(answer["rooms"]["join"]) == count
            token = answer["next_batch"]
        return times

    async def nothing(timer: Timer) -> int:
        for _ in range(small):
            await timer.time(reader.sync_bytes(token))
        return small

    async def only_send(timer: Timer) -> int:
        for n in range(small):
            await writer.send(rooms[n % count], "one message")
        return small

    async def send_and_sync(timer: Timer) -> int:
        nonlocal token
        for n in range(small):
            await writer.send(rooms[n % count], "one message")
            answer = await timer.time(reader.sync(token))
            while not answer.get("rooms", {}).get("join"):  # type: ignore[attr-defined]
                answer = await timer.time(reader.sync(answer["next_batch"]))  # type: ignore[index]
            token = answer["next_batch"]  # type: ignore[index]
        return small

    times, small = 1, 20
    await first(Timer())
    await nothing(Timer())
    times, small = max(3, int(10 * scale)), max(50, int(600 * scale))
    rows = [await measure(server, f"initial sync, {count} rooms of 25 messages", first)]
    rows.append(await measure(server, f"sync with nothing new, {count} rooms", nothing))
    sending = await measure(server, "", only_send)
    token = (await reader.sync(filter=everything))["next_batch"]
    both = await measure(server, f"sync with one event, {count} rooms", send_and_sync)
    assert both.cpu_ms is not None and sending.cpu_ms is not None
    both.notes["cpu ms of send and sync"] = both.cpu_ms
    both.cpu_ms = max(0.0, both.cpu_ms - sending.cpu_ms)
    return [*rows, both]


async def messages(server: Server, scale: float) -> list[Row]:
    """``/messages`` backwards through a long room, 100 at a time; an operation is one event."""
    (person,) = await register(server, 1)
    room_id = await person.create_room()
    for n in range(500):
        await person.send(room_id, f"message {n} of a usual length")

    async def work(timer: Timer) -> int:
        events = 0
        for _ in range(rounds):
            path, start = f"/rooms/{quote(room_id)}/messages?dir=b&limit=100", ""
            while True:
                page = await timer.time(person.call("GET", path + start))
                events += len(page["chunk"])  # type: ignore[index]
                if not page.get("end") or not page["chunk"]:  # type: ignore[attr-defined, index]
                    break
                start = "&from=" + quote(page["end"], safe="")  # type: ignore[index]
        return events

    rounds = 1
    assert await work(Timer()) >= 500
    rounds = max(2, int(60 * scale))
    return [await measure(server, "/messages, for each event", work)]


async def join(server: Server, scale: float) -> list[Row]:
    """People joining one room until it has 500 members."""
    count = max(50, int(500 * min(scale, 1)))
    (owner,) = await register(server, 1)
    people = await register(server, count)
    room_id = await owner.create_room()
    for person in people[:10]:
        await person.join(room_id)

    async def work(timer: Timer) -> int:
        for person in people[10:]:
            await timer.time(person.join(room_id))
            person.connection.close()
        return count - 10

    return [await measure(server, f"join, as the room grows to {count}", work)]
