"""storage.tables.embedded: the private PostgreSQL lives and dies with us."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from config.schema import DatabaseArgs, DatabaseSettings
from storage.tables import transfer
from storage.tables.database import DatabaseUnavailable
from storage.tables.database_connection import Connection
from storage.tables.database_open import external_parameters, open_database
from storage.tables.embedded import EmbeddedPostgres
from storage.tables.embedded_account import Account, needs_reach
from storage.tables.errors import DatabaseRefused

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A data directory that was initialised and stopped; tests copy it."""
    folder = Path(
        tempfile.mkdtemp(prefix="folkmoot-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    server = EmbeddedPostgres(folder / "data")
    (folder / "data").mkdir(0o700)
    server.start()
    server.stop()
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def data_dir(cluster: Path) -> Iterator[Path]:
    folder = cluster.with_name(f"copy{time.monotonic_ns()}")
    subprocess.run(["cp", "-a", cluster, folder], check=True)
    yield folder
    shutil.rmtree(folder)


def query(server: EmbeddedPostgres, sql: str) -> Any:
    connection = psycopg2.connect(**server.parameters)  # type: ignore[call-overload]
    try:
        connection.autocommit = True
        cur = connection.cursor()
        cur.execute(sql)
        return cur.fetchone() if cur.description else None
    finally:
        connection.close()


def children_of(data_dir: Path) -> list[int]:
    """Processes at work in this data directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.path.samefile(entry / "cwd", data_dir / "postgres"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_starts_safe_and_private_and_stops_without_a_trace(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        settings = ("fsync", "synchronous_commit", "full_page_writes", "server_encoding", "listen_addresses")
        found = query(server, "SELECT " + ", ".join(f"current_setting('{name}')" for name in settings))
        assert found == ("on", "on", "on", "UTF8", "")
        assert 2 <= int(str(server.parameters["connect_timeout"])) <= 10
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
        assert server.pid in children_of(data_dir)
        assert os.stat(f"/proc/{server.pid}").st_uid != 0
        assert Path(f"/proc/{server.pid}/stat").read_text().rsplit(")")[1].split()[1] == str(os.getpid())
    finally:
        server.stop()
    assert children_of(data_dir) == []


def start_and_hang(data_dir: Path) -> "subprocess.Popen[bytes]":
    """Another server process with its PostgreSQL, which then waits to be killed."""
    program = (
        "import sys, time; from pathlib import Path; from storage.tables.embedded import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(60)"
    )
    return subprocess.Popen([sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE, cwd=ROOT)


def test_sigkill_of_the_server_orphans_nothing_and_loses_nothing(data_dir: Path) -> None:
    other = start_and_hang(data_dir)
    assert other.stdout is not None
    other.stdout.readline()
    server = EmbeddedPostgres(data_dir)
    query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    other.kill()
    other.wait()
    other.stdout.close()
    wait_for(lambda: not children_of(data_dir))
    server.start()
    try:
        assert query(server, "SELECT answer FROM kept") == (42,)
    finally:
        server.stop()


def test_leftover_is_taken_over(data_dir: Path) -> None:
    """The same when the leftover did not hear of our death and a client still hangs on it."""
    leftover = EmbeddedPostgres(data_dir)
    leftover.start()
    connection = psycopg2.connect(**leftover.parameters)  # type: ignore[call-overload]
    connection.cursor().execute("CREATE TABLE never_committed (x int)")
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        assert server.pid != leftover.pid
        assert query(server, "SELECT to_regclass('never_committed')") == (None,)
    finally:
        server.stop()
        leftover.stop()
        connection.close()


def test_crash_of_postgres_and_stale_files_do_not_hinder_the_start(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    query(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    wait_for(lambda: not children_of(data_dir))
    server.start()
    try:
        assert query(server, "SELECT answer FROM kept") == (42,)
    finally:
        server.stop()


def test_stopped_leftover_is_ended(data_dir: Path) -> None:
    leftover = EmbeddedPostgres(data_dir)
    leftover.start()
    query(leftover, "CREATE TABLE kept AS SELECT 42 AS answer")
    for child in children_of(data_dir):
        os.kill(child, signal.SIGSTOP)
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        assert query(server, "SELECT answer FROM kept") == (42,)
    finally:
        server.stop()
        leftover.stop()


def test_a_number_that_another_process_has_by_now_does_not_hinder_the_start(data_dir: Path) -> None:
    """As after a restart of a container, or with a zombie that nobody collects."""
    with subprocess.Popen(["sleep", "60"]) as other:
        (data_dir / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{data_dir / 'postgres'}\n")
        server = EmbeddedPostgres(data_dir)
        try:
            server.start()
            assert query(server, "SELECT 1") == (1,)
            assert other.poll() is None
        finally:
            server.stop()
            other.kill()


@ensureDeferred
async def test_i10_postgres_that_dies_gives_503_and_comes_back(data_dir: Path) -> None:
    database = await open_database(None, data_dir, reactor)
    try:
        assert await database.fetch("SELECT count(*) FROM outbox") == [(0,)]
        hanging = database.execute("INSERT INTO outbox (kind, payload) SELECT 'a', pg_sleep(5)::text")
        await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        for child in children_of(data_dir):
            os.kill(child, signal.SIGKILL)
        with pytest.raises(DatabaseUnavailable):
            await hanging
        for _attempt in range(20):
            try:
                assert await database.fetch("SELECT count(*) FROM outbox") == [(0,)]
                break
            except DatabaseUnavailable:
                await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        else:
            pytest.fail("the database did not come back")
    finally:
        await database.close()
    assert children_of(data_dir) == []


def test_socket_moves_where_the_path_is_too_long(cluster: Path) -> None:
    deep = cluster.with_name("x" * 110)
    subprocess.run(["cp", "-a", cluster, deep], check=True)
    server = EmbeddedPostgres(deep)
    server.start()
    socket_dir = Path(str(server.parameters["host"]))
    try:
        assert query(server, "SELECT 1") == (1,)
        assert socket_dir.stat().st_mode & 0o777 == 0o700
        assert deep not in socket_dir.parents
    finally:
        server.stop()
        shutil.rmtree(deep)
    assert not socket_dir.exists()


def test_another_major_version_is_refused_with_the_way_out(data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(DatabaseRefused, match="dump-database"):
        EmbeddedPostgres(data_dir).start()


def test_start_that_fails_says_why(data_dir: Path) -> None:
    (data_dir / "postgres" / "operator.conf").write_text("shared_buffers = 'much'\n")
    with pytest.raises(DatabaseRefused, match="shared_buffers"):
        EmbeddedPostgres(data_dir).start()
    assert children_of(data_dir) == []


def test_closed_directories_need_reach(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    assert needs_reach(Account(61234, 61234), closed / "file")
    assert not needs_reach(Account(61234, 61234), Path("/tmp/file"))
    assert not needs_reach(Account(-1, -1), closed / "file")


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_i04_unsafe_settings_are_refused(data_dir: Path, setting: str) -> None:
    (data_dir / "postgres" / "operator.conf").write_text(f"{setting} = off\n")
    server = EmbeddedPostgres(data_dir)
    server.start()
    try:
        with pytest.raises(DatabaseRefused, match=f"{setting} off"):
            Connection(server.parameters, 1000)
    finally:
        server.stop()


def test_database_that_is_not_utf8_is_refused(embedded_postgres: EmbeddedPostgres) -> None:
    sql = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
    query(embedded_postgres, sql)
    with pytest.raises(DatabaseRefused, match="LATIN1"):
        Connection({**embedded_postgres.parameters, "dbname": "latin"}, 1000)


@ensureDeferred
async def test_external_database(embedded_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    parameters = embedded_postgres.parameters
    query(embedded_postgres, "CREATE DATABASE external")
    args = DatabaseArgs(host=str(parameters["host"]), user="folkmoot", database="external", cp_max=2)
    database = await open_database(DatabaseSettings(args=args), tmp_path, reactor)
    assert await database.fetch("SELECT current_database(), count(*) FROM outbox") == [("external", 0)]
    await database.close()
    assert os.listdir(tmp_path) == []


def test_external_url() -> None:
    parameters = external_parameters(DatabaseSettings(url="postgresql://me@db/folk"))
    assert parameters["dsn"] == "postgresql://me@db/folk"
    assert "dbname" not in parameters


def test_tables_travel_through_a_file(data_dir: Path, cluster: Path, tmp_path: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    server.start()
    query(server, "CREATE TABLE kept AS SELECT 'é\n\\' AS text")
    server.stop()
    file = tmp_path / "tables.sql"
    transfer.dump(None, data_dir, file)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(DatabaseRefused, match="exists"):
        transfer.dump(None, data_dir, file)
    with pytest.raises(DatabaseRefused, match="tables already"):
        transfer.load(None, data_dir, file)
    fresh = cluster.with_name("fresh")
    fresh.mkdir(0o700)
    try:
        transfer.load(None, fresh, file)
        server = EmbeddedPostgres(fresh)
        server.start()
        assert query(server, "SELECT text FROM kept") == ("é\n\\",)
        server.stop()
    finally:
        shutil.rmtree(fresh)


def test_a_file_of_tables_is_fit_for_older_versions(data_dir: Path, tmp_path: Path) -> None:
    """PostgreSQL 14 to 16 refuse a setting that later versions write in front; a row that reads the same is data."""
    server = EmbeddedPostgres(data_dir)
    server.start()
    query(server, "CREATE TABLE kept AS SELECT 'SET transaction_timeout = 0;' AS text")
    server.stop()
    transfer.dump(None, data_dir, tmp_path / "tables.sql")
    with open(tmp_path / "copy.sql", "w+b") as copy:
        transfer.copy_for_any_version(tmp_path / "tables.sql", copy)
    assert (tmp_path / "tables.sql").read_text().splitlines().count("SET transaction_timeout = 0;") == 2
    lines = (tmp_path / "copy.sql").read_text().splitlines()
    assert [lines[n - 1].split()[0] for n, line in enumerate(lines) if "transaction_timeout" in line] == ["COPY"]
