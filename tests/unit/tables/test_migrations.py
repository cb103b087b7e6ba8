"""storage.tables.migrations: order, once only, two servers at once, files that changed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from storage.tables.errors import DatabaseRefused
from storage.tables.migrations import Migration, migrate, read_migrations

SMALL = [
    Migration(1, "first", "CREATE TABLE a (x int)"),
    Migration(7, "second", "INSERT INTO a VALUES (1); SELECT pg_sleep(0.05)"),
    Migration(9, "third", "INSERT INTO a SELECT x + 1 FROM a"),
]


@pytest.fixture
def connections(database_parameters: dict[str, Any]) -> Iterator[list[Any]]:
    opened = [psycopg2.connect(**database_parameters) for _ in range(2)]
    for one in opened:
        one.autocommit = True
    opened[0].cursor().execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield opened
    for one in opened:
        one.close()


def rows(connection: Any, sql: str) -> list[Any]:
    cur = connection.cursor()
    cur.execute(sql)
    return list(cur.fetchall())


def test_applied_in_order_and_once(connections: list[Any]) -> None:
    assert migrate(connections[0], SMALL) == [1, 7, 9]
    assert migrate(connections[0], SMALL) == []
    assert rows(connections[0], "SELECT x FROM a ORDER BY x") == [(1,), (2,)]
    assert migrate(connections[0], [*SMALL, Migration(10, "more", "DELETE FROM a")]) == [10]


def test_two_servers_at_once_apply_each_once(connections: list[Any]) -> None:
    applied: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda connection=one: applied.append(migrate(connection, SMALL)))
        for one in connections
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for numbers in applied for number in numbers) == [1, 7, 9]
    assert rows(connections[0], "SELECT x FROM a ORDER BY x") == [(1,), (2,)]


def test_a_failing_one_leaves_nothing_half_done(connections: list[Any]) -> None:
    broken = [*SMALL[:1], Migration(2, "broken", "CREATE TABLE b (x int); SELECT 1/0")]
    with pytest.raises(psycopg2.errors.DivisionByZero):
        migrate(connections[0], broken)
    assert rows(connections[0], "SELECT number FROM schema_migrations") == [(1,)]
    assert rows(connections[0], "SELECT to_regclass('b')") == [(None,)]
    assert migrate(connections[0], SMALL) == [7, 9]


def test_changed_file_is_refused(connections: list[Any]) -> None:
    migrate(connections[0], SMALL)
    with pytest.raises(DatabaseRefused, match=r"0001_first\.sql was changed"):
        migrate(connections[0], [SMALL[0]._replace(sql="CREATE TABLE c (x int)"), *SMALL[1:]])


def test_database_of_a_newer_release_is_refused(connections: list[Any]) -> None:
    migrate(connections[0], SMALL)
    with pytest.raises(DatabaseRefused, match=r"0009_third of a newer Folkmoot"):
        migrate(connections[0], SMALL[:2])


def test_ours_are_readable_and_numbered_once(tmp_path: Path) -> None:
    ours = read_migrations()
    assert ours[0].name == "outbox"
    assert [one.number for one in ours] == sorted({one.number for one in ours})
    (tmp_path / "0001_a.sql").write_text("")
    (tmp_path / "0001_b.sql").write_text("")
    with pytest.raises(ValueError, match="two migrations"):
        read_migrations(tmp_path)
