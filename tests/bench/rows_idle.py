"""Rows about a server that has nothing to do: memory, memory for each connection, and starting again."""

import asyncio

from tests.bench.measure import Row
from tests.bench.people import V3, in_parallel, register
from tests.bench.process_tree import disk_bytes, pss_bytes, rss_bytes
from tests.bench.servers import Server
from tests.bench.websocket import Socket


async def idle(server: Server, scale: float) -> list[Row]:
    """Memory of idle keep-alive connections and of idle WebSockets."""
    (person,) = await register(server, 1)
    count = max(100, int(500 * min(scale, 1.5)))
    row = Row("idle connections", count)
    pid = server.roots[0]
    await asyncio.sleep(1)
    before = rss_bytes(pid)
    connections = [server.connection(person.token) for _ in range(count)]
    await in_parallel(connections, lambda c: c.bytes("GET", f"{V3}/account/whoami"))
    await asyncio.sleep(1)
    row.notes["KB for each idle HTTP connection"] = (rss_bytes(pid) - before) / 1024 / count
    for connection in connections:
        connection.close()
    if server.websocket:
        sockets_per_person = 50
        people = await register(server, -(-count // sockets_per_person))
        await asyncio.sleep(1)
        before = rss_bytes(pid)

        async def attach(n: int) -> Socket:
            person = people[n // sockets_per_person]
            return await Socket.open(server.host, server.port, person.token, None, set_presence="offline")

        sockets = await in_parallel(range(count), attach)
        await asyncio.sleep(1)
        row.notes["KB for each idle WebSocket"] = (rss_bytes(pid) - before) / 1024 / count
        for socket in sockets:
            socket.close()
    return [row]


async def restart(server: Server, scale: float) -> list[Row]:
    """Stop cleanly and start again on what the other rows left behind."""
    row = Row("start on an existing directory", 1)
    row.notes["seconds to stop"] = server.stop()
    row.notes["seconds to ready"] = row.seconds = await server.start()
    await asyncio.sleep(2)
    row.notes["RSS of the server process, MB"] = rss_bytes(server.roots[0]) / 1e6
    row.notes["memory of the whole tree, MB"] = pss_bytes(server.roots) / 1e6
    row.notes["disk, MB"] = disk_bytes(server.data) / 1e6
    return [row]
