"""From the configuration to a database that is up, fit and migrated."""

import time
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.threads import deferToThreadPool

from config.schema import DatabaseSettings
from storage.tables.database import Database
from storage.tables.database_connection import Connection
from storage.tables.embedded import EmbeddedPostgres
from storage.tables.errors import DatabaseRefused
from storage.tables.migrations import migrate, read_migrations

CONNECT_SECONDS = 15.0


async def open_database(
    settings: DatabaseSettings | None, data_dir: Path, reactor: Any, connections: int = 4
) -> Database:
    """Start the embedded PostgreSQL (``settings`` is None) or reach the operator's own, migrate, make the pool.

    Call it on the main thread with ``data_dir`` locked; ``Database.close`` ends the embedded one too. Raises
    DatabaseRefused.
    """
    embedded = EmbeddedPostgres(data_dir) if settings is None else None
    if embedded is not None:
        embedded.start()
        parameters = embedded.parameters
    else:
        assert settings is not None
        parameters = external_parameters(settings)
        connections = settings.args.cp_max or connections
    try:
        await deferToThreadPool(reactor, reactor.getThreadPool(), prepare, parameters)
    except BaseException:
        if embedded is not None:
            embedded.stop()
        raise
    if embedded is not None:
        embedded.supervise(reactor)
    after_close = embedded.stop if embedded is not None else None
    return Database(reactor, parameters, connections=connections, after_close=after_close)


def prepare(parameters: dict[str, object]) -> list[int]:
    """Wait for the server, check its settings, bring its schema up to date; the numbers of the migrations applied.

    Blocks.
    """
    connection = _connect(parameters)
    try:
        return migrate(connection.raw, read_migrations())
    except psycopg2.Error as problem:
        raise DatabaseRefused(
            f"The schema could not be brought up to date: {str(problem).strip()}"
        ) from problem
    finally:
        connection.close()


def external_parameters(settings: DatabaseSettings) -> dict[str, object]:
    """libpq's parameters for the section ``database:``."""
    args = settings.args
    names = [name for name in args.__dataclass_fields__ if name not in ("cp_max", "database")]
    parameters = {name: value for name in names if (value := getattr(args, name)) is not None}
    parameters.setdefault("dbname", args.database)
    parameters.setdefault("application_name", "folkmoot")
    if settings.url is not None:
        parameters["dsn"] = settings.url
    parameters = {name: value for name, value in parameters.items() if value is not None}
    return parameters | {"tcp_user_timeout": 30_000, "client_encoding": "UTF8"}


def _connect(parameters: dict[str, object]) -> Connection:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return Connection(parameters, statement_timeout_ms=0)
        except psycopg2.OperationalError as problem:
            if time.monotonic() > deadline:
                raise DatabaseRefused(
                    f"PostgreSQL does not answer: {str(problem).strip()}. "
                    "Check `database:` and that PostgreSQL is running"
                ) from problem
            time.sleep(0.25)
        except psycopg2.Error as problem:
            raise DatabaseRefused(
                f"Cannot use the database: {str(problem).strip()}. Check `database:`"
            ) from problem
