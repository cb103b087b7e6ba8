"""Shared fixtures: one embedded PostgreSQL for the test session, a database of one's own for each test."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg2
import pytest
import pytest_twisted
from psycopg2.extensions import cursor as Cursor

from storage.tables.database import Database
from storage.tables.database_open import prepare
from storage.tables.embedded import EmbeddedPostgres
from tests.fakes.homeservers import Homes
from tests.fakes.postgres import TEST_POSTGRES, SeparatePostgres

TEMPLATE = "folkmoot_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def embedded_postgres() -> Iterator[EmbeddedPostgres | SeparatePostgres]:
    """A running PostgreSQL with a migrated template database. In memory where possible: fsync is on, and free there.

    It is the embedded one unless the environment names another.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-test-", dir=memory if memory.is_dir() else None))
    server = SeparatePostgres(folder) if TEST_POSTGRES in os.environ else EmbeddedPostgres(folder)
    try:
        server.start()
        execute_on(server.parameters, f"CREATE DATABASE {TEMPLATE}")
        prepare({**server.parameters, "dbname": TEMPLATE})
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def homes(embedded_postgres: EmbeddedPostgres | SeparatePostgres) -> Homes:
    """Whole homeservers in this process, of the names that are asked for."""

    def make_database(name: str) -> Mapping[str, object]:
        database = f"twin_{name.replace('.', '_')}"
        execute_on(embedded_postgres.parameters, f"CREATE DATABASE {database} TEMPLATE {TEMPLATE}")
        return {**embedded_postgres.parameters, "dbname": database}

    return Homes(make_database)


@pytest.fixture
def database_parameters(embedded_postgres: EmbeddedPostgres | SeparatePostgres) -> Iterator[dict[str, object]]:
    """libpq's parameters of a fresh, migrated database."""
    name = f"test_{next(_numbers)}"
    execute_on(embedded_postgres.parameters, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield {**embedded_postgres.parameters, "dbname": name}
    execute_on(embedded_postgres.parameters, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_parameters: dict[str, object]) -> Iterator[Database]:
    """A Database on a fresh, migrated PostgreSQL database."""
    from twisted.internet import reactor

    database = Database(reactor, database_parameters)  # type: ignore[arg-type]
    yield database
    pytest_twisted.blockon(database.close())


@pytest.fixture(scope="session")
def shared_database_parameters(embedded_postgres: EmbeddedPostgres | SeparatePostgres) -> dict[str, object]:
    """libpq's parameters of a migrated database that nobody commits to."""
    execute_on(embedded_postgres.parameters, f"CREATE DATABASE test_shared TEMPLATE {TEMPLATE}")
    return {**embedded_postgres.parameters, "dbname": "test_shared"}


@pytest.fixture
def cur(shared_database_parameters: dict[str, object]) -> Iterator[Cursor]:
    """A cursor in a transaction that is rolled back afterwards: the quick way to test table functions."""
    connection = psycopg2.connect(**shared_database_parameters)  # type: ignore[call-overload]
    try:
        yield connection.cursor()
    finally:
        connection.close()


def execute_on(parameters: dict[str, object], sql: str) -> None:
    """One statement outside a transaction."""
    connection = psycopg2.connect(**parameters)  # type: ignore[call-overload]
    try:
        connection.autocommit = True
        connection.cursor().execute(sql)
    finally:
        connection.close()
