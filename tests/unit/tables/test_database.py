"""storage.tables.database: transactions, retries, and what happens when PostgreSQL goes away."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors as pg_errors
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults

from storage.tables import outbox
from storage.tables.database import Cursor, Database, DatabaseRefused, DatabaseUnavailable, UnstorableText
from storage.tables.log_binding import bind_log

NUMBERS = "CREATE TABLE numbers (number int PRIMARY KEY)"


def insert(number: int) -> Any:
    def work(cur: Cursor) -> int:
        cur.execute("INSERT INTO numbers VALUES (%s)", (number,))
        return number

    return work


async def numbers(database: Database) -> list[int]:
    return [row[0] for row in await database.fetch("SELECT number FROM numbers ORDER BY 1")]


@ensureDeferred
async def test_run_commits_all_statements_together(database: Database) -> None:
    await database.execute(NUMBERS)

    def work(cur: Cursor) -> str:
        insert(1)(cur)
        insert(2)(cur)
        return "done"

    assert await database.run(work) == "done"
    assert await numbers(database) == [1, 2]


@ensureDeferred
async def test_run_rolls_back_when_work_raises(database: Database) -> None:
    await database.execute(NUMBERS)

    def work(cur: Cursor) -> None:
        insert(1)(cur)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await database.run(work)
    assert await numbers(database) == []
    await database.run(insert(1))
    with pytest.raises(pg_errors.UniqueViolation):
        await database.run(insert(1))
    assert await database.run(insert(2)) == 2


@ensureDeferred
async def test_swallowed_statement_error_is_not_reported_as_success(database: Database) -> None:
    await database.execute(NUMBERS)

    def work(cur: Cursor) -> None:
        insert(1)(cur)
        try:
            insert(1)(cur)
        except pg_errors.UniqueViolation:
            pass

    with pytest.raises(RuntimeError, match="rolled back"):
        await database.run(work)
    assert await numbers(database) == []


@ensureDeferred
async def test_work_without_statements(database: Database) -> None:
    assert await database.run(lambda cur: 7) == 7


@ensureDeferred
async def test_single_statements(database: Database) -> None:
    await database.execute(NUMBERS)
    assert await database.execute("INSERT INTO numbers SELECT generate_series(1, 3)") == 3
    assert await database.run_single(insert(4)) == 4

    def two(cur: Cursor) -> None:
        insert(5)(cur)
        insert(6)(cur)

    with pytest.raises(RuntimeError, match="one statement"):
        await database.run_single(two)


@pytest.mark.parametrize("text", ["nul \0 here", "surrogate \ud800"])
@ensureDeferred
async def test_a07_nul_and_surrogates_are_refused_and_harm_nothing(database: Database, text: str) -> None:
    await database.execute("CREATE TABLE texts (body text)")
    with pytest.raises(UnstorableText) as caught:
        await database.execute("INSERT INTO texts VALUES (%s)", (text,))
    assert (caught.value.status, caught.value.errcode) == (400, "M_BAD_JSON")

    def second(cur: Cursor) -> None:
        cur.execute("INSERT INTO texts VALUES ('kept?')")
        cur.execute("INSERT INTO texts VALUES (%s)", (text,))

    with pytest.raises(UnstorableText):
        await database.run(second)
    assert await database.fetch("SELECT * FROM texts") == []


@ensureDeferred
async def test_deadlock_is_tried_again(database: Database) -> None:
    await database.execute(NUMBERS)
    await database.execute("INSERT INTO numbers VALUES (1), (2)")
    meeting = threading.Barrier(2)
    runs: list[int] = []

    def crossing(first: int, second: int) -> Any:
        def work(cur: Cursor) -> None:
            runs.append(first)
            cur.execute("SELECT 1 FROM numbers WHERE number = %s FOR UPDATE", (first,))
            if len(runs) <= 2:
                meeting.wait(5)
            cur.execute("SELECT 1 FROM numbers WHERE number = %s FOR UPDATE", (second,))

        return work

    await gatherResults([database.run(crossing(1, 2)), database.run(crossing(2, 1))])
    assert len(runs) == 3


@pytest.fixture
def hasty(database_parameters: dict[str, object]) -> Iterator[Database]:
    """A Database with one connection and little time."""
    database = Database(reactor, database_parameters, connections=1, wait_seconds=0.3, run_seconds=1.0)
    yield database
    blockon(database.close())


@ensureDeferred
async def test_a_call_that_finds_no_free_connection_ends_and_is_never_done(hasty: Database) -> None:
    await hasty.execute(NUMBERS)
    first = hasty.fetch("SELECT pg_sleep(0.9)")
    with pytest.raises(DatabaseUnavailable, match="too busy"):
        await hasty.execute("INSERT INTO numbers VALUES (1)")
    await first
    assert await numbers(hasty) == []


@ensureDeferred
async def test_a_server_that_stops_answering_holds_neither_caller_nor_thread(hasty: Database) -> None:
    await hasty.execute(NUMBERS)
    stopped = await backend(hasty)
    runs: list[int] = []

    def work(cur: Cursor) -> None:
        runs.append(1)
        os.kill(stopped, signal.SIGSTOP)
        insert(1)(cur)

    try:
        with pytest.raises(DatabaseUnavailable, match="not known"):
            await hasty.run(work)
        assert await numbers(hasty) == []  # by the same thread, on another connection
        assert await backend(hasty) != stopped
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert len(runs) == 1


@ensureDeferred
async def test_a_server_that_stops_answering_does_not_hold_the_shutdown(database: Database) -> None:
    stopped = await backend(database)
    hanging = database.fetch("SELECT pg_sleep(60)")
    os.kill(stopped, signal.SIGSTOP)
    try:
        closing = database.close()
        with pytest.raises(DatabaseUnavailable):
            await hanging
        await closing
    finally:
        os.kill(stopped, signal.SIGCONT)


@ensureDeferred
async def test_a_connect_without_an_answer_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s.PGSQL.5432"))
        silent.listen()
        waits = {"host": str(tmp_path), "dbname": "x", "connect_timeout": 2}  # the shortest that libpq knows
        database = Database(reactor, waits, patience=0.0)
        with pytest.raises(DatabaseUnavailable):
            await database.fetch("SELECT 1")
        await database.close()


@ensureDeferred
async def test_a_statement_that_takes_too_long_is_a_503(database_parameters: dict[str, object]) -> None:
    database = Database(reactor, database_parameters, statement_timeout_ms=50)
    with pytest.raises(DatabaseUnavailable):
        await database.fetch("SELECT pg_sleep(5)")
    with pytest.raises(DatabaseUnavailable):
        await database.run(lambda cur: cur.execute("SELECT pg_sleep(5)"))
    assert await database.fetch("SELECT 1") == [(1,)]
    await database.close()


@ensureDeferred
async def test_a_server_that_became_read_only_is_left(hasty: Database) -> None:
    await hasty.execute(NUMBERS)
    await hasty.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailable):
        await hasty.run_single(insert(1))
    assert await hasty.run_single(insert(1)) == 1


async def backend(database: Database) -> int:
    return (await database.fetch("SELECT pg_backend_pid()"))[0][0]


def kill_backend(parameters: dict[str, object], pid: int) -> None:
    connection = psycopg2.connect(**parameters)  # type: ignore[call-overload]
    connection.autocommit = True
    connection.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
    connection.close()


@ensureDeferred
async def test_i10_connection_that_died_while_idle_is_replaced(
    database: Database, database_parameters: dict[str, object]
) -> None:
    await database.execute(NUMBERS)
    kill_backend(database_parameters, await backend(database))
    assert await database.run_single(insert(1)) == 1
    assert await numbers(database) == [1]


def insert_and_then(runs: list[int], action: Callable[[Cursor], None]) -> Callable[[Cursor], None]:
    """Work that inserts 1, notes who serves it in ``runs``, and does ``action``."""

    def work(cur: Cursor) -> None:
        insert(1)(cur)
        runs.append(cur.connection.info.backend_pid)
        action(cur)

    return work


@ensureDeferred
async def test_i10_connection_lost_before_commit_repeats_the_work(
    database: Database, database_parameters: dict[str, object]
) -> None:
    await database.execute(NUMBERS)
    runs: list[int] = []

    def die_once(cur: Cursor) -> None:
        if len(runs) == 1:
            kill_backend(database_parameters, runs[0])
        insert(2)(cur)

    await database.run(insert_and_then(runs, die_once))
    assert len(runs) == 2
    assert await numbers(database) == [1, 2]


@ensureDeferred
async def test_i10_connection_lost_at_commit_is_a_503_and_not_repeated(
    database: Database, database_parameters: dict[str, object]
) -> None:
    await database.execute(NUMBERS)
    runs: list[int] = []
    with pytest.raises(DatabaseUnavailable) as caught:
        await database.run(insert_and_then(runs, lambda cur: kill_backend(database_parameters, runs[-1])))
    assert caught.value.status == 503
    assert caught.value.body()["errcode"] == "M_UNKNOWN"
    assert len(runs) == 1
    assert await numbers(database) == []


@ensureDeferred
async def test_i10_single_statement_lost_under_way_is_not_repeated(
    database: Database, database_parameters: dict[str, object]
) -> None:
    runs: list[int] = []

    def work(cur: Cursor) -> None:
        runs.append(cur.connection.info.backend_pid)
        killer = threading.Timer(0.1, kill_backend, (database_parameters, runs[0]))
        killer.start()
        try:
            cur.execute("SELECT pg_sleep(5)")
        finally:
            killer.join()

    with pytest.raises(DatabaseUnavailable):
        await database.run_single(work)
    assert len(runs) == 1
    assert await database.fetch("SELECT 1") == [(1,)]


@ensureDeferred
async def test_outbox_wakes_the_follower_after_the_commit(database: Database) -> None:
    woken: list[list[outbox.OutboxRow]] = []
    database.on_outbox = lambda: woken.append([])

    def work(cur: Cursor) -> None:
        outbox.add(cur, "device_list", {"user_id": "@a:b", "nul": "\0"})
        outbox.add(cur, "device_list", {"user_id": "@c:d"})

    await database.run(work)
    assert woken == [[]]
    rows = await database.run(lambda cur: outbox.pending(cur, 10))
    assert [(row.kind, row.payload) for row in rows] == [
        ("device_list", {"user_id": "@a:b", "nul": "\0"}),
        ("device_list", {"user_id": "@c:d"}),
    ]
    await database.run(lambda cur: outbox.remove(cur, [rows[0].id]))
    assert [row.id for row in await database.run(lambda cur: outbox.pending(cur, 10))] == [rows[1].id]
    assert woken == [[]]

    def fails(cur: Cursor) -> None:
        outbox.add(cur, "device_list", {})
        raise KeyError

    with pytest.raises(KeyError):
        await database.run(fails)
    assert woken == [[]]
    assert len(await database.run(lambda cur: outbox.pending(cur, 10))) == 1


@ensureDeferred
async def test_calls_after_close_are_refused(database: Database) -> None:
    pending = database.fetch("SELECT pg_sleep(0.05)")
    closing = database.close()
    with pytest.raises(DatabaseUnavailable):
        await database.fetch("SELECT 1")
    assert len(await pending) == 1
    await closing


@ensureDeferred
async def test_tables_belong_to_the_log_that_came_first(database: Database) -> None:
    tries = [database.run(lambda cur, epoch=epoch: bind_log(cur, epoch)) for epoch in "ab"]  # type: ignore[misc]
    outcome = [bound for bound, _ in await DeferredList(tries, consumeErrors=True)]
    assert sorted(outcome) == [False, True]
    ours = "ab"[outcome.index(True)]
    await database.run(lambda cur: bind_log(cur, ours))
    with pytest.raises(DatabaseRefused, match="belongs to the log"):
        await database.run(lambda cur: bind_log(cur, "c"))
