"""Rows about what reaches people while they are connected: messages, receipts, typing, to-device messages."""

import asyncio
import time
from urllib.parse import quote

from tests.bench.audience import Audience, LongPollers, SocketReaders
from tests.bench.measure import Row, Timer, measure, percentile
from tests.bench.people import Person, in_parallel, register
from tests.bench.servers import Server

MEMBERS = 100
SPACING = 2.0


async def _room_of(server: Server, count: int) -> tuple[str, list[Person]]:
    people = await register(server, count)
    room_id = await people[0].create_room()
    await in_parallel(people[1:], lambda person: person.join(room_id), 2)
    return room_id, people


def _with_delays(row: Row, audience: Audience) -> Row:
    delays = sorted(audience.delays_ms)
    row.p50, row.p95, row.p99 = (percentile(delays, percent) for percent in (50, 95, 99))
    if audience.failures:
        row.notes["failures"] = len(audience.failures)
        print("   ", *audience.failures[:3], sep="\n    ", flush=True)
    return row


async def _messages(
    server: Server, name: str, audience: Audience, sender: Person, room_id: str, scale: float
) -> Row:
    """One message each 2 s; an operation is one delivery to one member."""
    audience.expect(b"warm up")
    await sender.send(room_id, "warm up")
    await audience.arrived()
    await asyncio.sleep(1)
    audience.delays_ms.clear()
    count = max(3, int(10 * scale))

    async def work(timer: Timer) -> int:
        delivered = 0
        for n in range(count):
            began = time.monotonic()
            audience.expect(f"marker-{n}-".encode())
            await sender.send(room_id, f"marker-{n}- of a usual length")
            delivered += await audience.arrived()
            await asyncio.sleep(max(0.0, SPACING - (time.monotonic() - began)))
        return delivered

    return _with_delays(await measure(server, name, work), audience)


async def _receipts(
    server: Server, audience: Audience, people: list[Person], room_id: str, scale: float
) -> Row:
    """Each member in turn reads the newest message; an operation is a receipt and its deliveries to all."""
    event_id = await people[0].send(room_id, "read this")
    await asyncio.sleep(1)
    audience.delays_ms.clear()
    readers = people[1 : 1 + min(len(people) - 1, max(5, int(30 * scale)))]

    async def work(timer: Timer) -> int:
        for reader in readers:
            audience.expect(b"m.receipt")
            await reader.call("POST", f"/rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}", {})
            await audience.arrived()
        return len(readers)

    return _with_delays(await measure(server, "receipt in a room of 100", work), audience)


async def _typing(
    server: Server, audience: Audience, people: list[Person], room_id: str, scale: float
) -> Row:
    """Members start to type, one after the other; an operation is a notice and its deliveries to all."""
    audience.delays_ms.clear()
    typists = people[1 : 1 + min(len(people) - 1, max(5, int(30 * scale)))]

    async def work(timer: Timer) -> int:
        for typist in typists:
            audience.expect(b"m.typing")
            path = f"/rooms/{quote(room_id)}/typing/{quote(typist.user_id)}"
            await typist.call("PUT", path, {"typing": True, "timeout": 120_000})
            await audience.arrived()
        return len(typists)

    return _with_delays(await measure(server, "typing in a room of 100", work), audience)


async def live(server: Server, scale: float) -> list[Row]:
    """A room of 100 people on long-poll."""
    room_id, people = await _room_of(server, MEMBERS)
    audience = LongPollers(people)
    await audience.start()
    rows = [await _messages(server, "delivery to one of 100, long-poll", audience, people[0], room_id, scale)]
    rows.append(await _receipts(server, audience, people, room_id, scale))
    rows.append(await _typing(server, audience, people, room_id, scale))
    await audience.stop()
    return rows


async def live_websocket(server: Server, scale: float) -> list[Row]:
    """The same over the WebSocket."""
    if not server.websocket:
        return []
    room_id, people = await _room_of(server, MEMBERS)
    audience = SocketReaders(people)
    await audience.start()
    rows = [await _messages(server, "delivery to one of 100, WebSocket", audience, people[0], room_id, scale)]
    await audience.stop()
    return rows


async def to_device(server: Server, scale: float) -> list[Row]:
    """One device sends to-device messages to one that is live on long-poll; sending and delivery together."""
    alice, bob = await register(server, 2)
    room_id = await alice.create_room()
    await bob.join(room_id)
    audience = LongPollers([bob])
    await audience.start()
    count = 0

    async def work(timer: Timer) -> int:
        nonlocal count
        for _ in range(times):
            count += 1
            marker = f"marker-{count}-"
            audience.expect(marker.encode())
            content = {"algorithm": "m.olm.v1", "ciphertext": marker + "x" * 400}
            body = {"messages": {bob.user_id: {bob.device_id: content}}}
            await alice.call("PUT", f"/sendToDevice/m.room.encrypted/{count}", body)
            await audience.arrived()
        return times

    times = 10
    await work(Timer())
    audience.delays_ms.clear()
    times = max(50, int(300 * scale))
    row = _with_delays(await measure(server, "to-device message, live", work), audience)
    await audience.stop()
    return [row]
