"""I11: one store is restored to an older time than the other."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from homeserver.same_time import begin_run
from storage.log.append import MISMATCH_KEY, Log
from storage.log.catalog import META
from storage.memory import MemoryStore, open_memory_log
from storage.tables.database import Database
from storage.tables.errors import DatabaseRefused
from storage.tables.log_binding import bind_log, runs, set_runs

KEY = "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json) VALUES ('@a:x', 'D', 'a', 'k', '{}')"


class Server:
    """A log and tables that are opened again and again, and set back."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = MemoryStore(reactor)  # type: ignore[arg-type]
        self.log: Log = self._open()

    def _open(self) -> Log:
        return open_memory_log(self.store, reactor)  # type: ignore[arg-type]

    async def start(self) -> None:
        self.log = self._open()
        await self.database.run(lambda cur: bind_log(cur, self.log.first_epoch))
        await begin_run(self.database, self.log)

    async def runs(self) -> int:
        found: int = await self.database.run(runs)
        return found

    def meta(self) -> Mapping[bytes, bytes]:
        return dict(self.store.tables[META.number].values)

    def set_log_back(self, meta: Mapping[bytes, bytes]) -> None:
        self.store.write({META.number: {key: meta.get(key) for key in {*self.meta(), *meta}}})

    async def set_tables_back(self, number: int) -> None:
        await self.database.run(lambda cur: set_runs(cur, number))


@pytest.fixture
def server(database: Database) -> Server:
    return Server(database)


@ensureDeferred
async def test_i11_stores_of_the_same_time_are_fine(server: Server) -> None:
    for number in (1, 2, 3):
        await server.start()
        assert await server.runs() == number
    meta = server.meta()
    await server.start()
    # Both restored from one backup.
    server.set_log_back(meta)
    await server.set_tables_back(3)
    await server.start()


@pytest.mark.parametrize("missed", [1, 2])
@ensureDeferred
async def test_i11_an_older_log_is_refused(server: Server, missed: int) -> None:
    await server.start()
    meta = server.meta()
    for _ in range(missed):
        await server.start()
    server.set_log_back(meta)
    for _ in range(3):
        with pytest.raises(DatabaseRefused, match="The rooms come from an earlier time than the tables"):
            await server.start()


@pytest.mark.parametrize("missed", [1, 2])
@ensureDeferred
async def test_i11_older_tables_are_refused_until_that_is_accepted(server: Server, missed: int) -> None:
    for _ in range(missed + 1):
        await server.start()
    await server.set_tables_back(1)
    for _ in range(3):
        with pytest.raises(DatabaseRefused, match="The tables come from an earlier time than the rooms"):
            await server.start()
    await server.database.execute("INSERT INTO users (user_id, created_ts) VALUES ('@a:x', 0)")
    await server.database.execute("INSERT INTO devices (user_id, device_id, created_ts) VALUES ('@a:x', 'D', 0)")
    await server.database.execute(KEY)
    server.store.write({META.number: {MISMATCH_KEY: b"1"}})
    await server.start()
    # They may have been given out before.
    assert await server.database.run(_keys) == 0
    await server.database.execute(KEY)
    await server.start()
    assert await server.database.run(_keys) == 1
    await server.set_tables_back(1)
    with pytest.raises(DatabaseRefused):
        await server.start()


@pytest.mark.parametrize("gaps", list(product([False, True], repeat=3)))
@ensureDeferred
async def test_i09_i11_starts_that_are_killed_at_either_gap_are_no_restore(server: Server, gaps: tuple[bool, ...]) -> None:
    await server.start()
    for after_tables in gaps:
        server.log = server._open()
        with pytest.raises(Killed):
            await begin_run(Dying(server.database, after_tables), server.log)  # type: ignore[arg-type]
    await server.start()


class Killed(Exception):
    """The start got no further."""


class Dying:
    """Tables on whose writing the server is killed, before it or right after it."""

    def __init__(self, database: Database, after: bool) -> None:
        self._database = database
        self._after = after

    async def run(self, work: Any) -> Any:
        if work is runs:
            return await self._database.run(work)
        if self._after:
            await self._database.run(work)
        raise Killed


def _keys(cur: Any) -> int:
    cur.execute("SELECT count(*) FROM one_time_keys")
    return int(cur.fetchone()[0])
