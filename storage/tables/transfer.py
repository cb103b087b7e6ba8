"""All tables to a file and back: between major versions of PostgreSQL, between embedded and external."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg2
from psycopg2.extensions import make_dsn

from config.schema import DatabaseSettings
from storage.tables.database_open import external_parameters
from storage.tables.embedded import EmbeddedPostgres
from storage.tables.embedded_cluster import environment, programs
from storage.tables.errors import DatabaseRefused


def dump(settings: DatabaseSettings | None, data_dir: Path, file: Path) -> None:
    """Write every table to ``file`` as SQL, readable by its owner alone. Blocks; raises DatabaseRefused."""
    if file.exists():
        raise DatabaseRefused(f"{file} exists; name a new file")
    fresh = file.with_name(file.name + ".part")
    try:
        private = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(private, "wb") as out, _parameters(settings, data_dir) as parameters:
            _run(["pg_dump", "--no-owner", "--no-privileges"], parameters, stdout=out)
            os.fsync(out.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def load(settings: DatabaseSettings | None, data_dir: Path, file: Path) -> None:
    """Fill an empty database from ``file``, all or nothing. Blocks; raises DatabaseRefused."""
    if not file.is_file():
        raise DatabaseRefused(f"{file} is not there; name a file that dump-database wrote")
    with _parameters(settings, data_dir) as parameters:
        _refuse_filled(parameters)
        with tempfile.TemporaryFile(dir=file.parent) as source:
            copy_for_any_version(file, source)
            _run(
                ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "-v", "ON_ERROR_STOP=1"],
                parameters,
                stdin=source,
            )


@contextmanager
def _parameters(settings: DatabaseSettings | None, data_dir: Path) -> Iterator[dict[str, object]]:
    if settings is not None:
        yield external_parameters(settings)
        return
    embedded = EmbeddedPostgres(data_dir)
    embedded.start()
    try:
        yield embedded.parameters
    finally:
        embedded.stop()


def _refuse_filled(parameters: dict[str, object]) -> None:
    try:
        connection = psycopg2.connect(**parameters)  # type: ignore[call-overload]
    except psycopg2.Error as problem:
        raise DatabaseRefused(f"PostgreSQL does not answer: {str(problem).strip()}") from problem
    try:
        cur = connection.cursor()
        cur.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        row = cur.fetchone()
        if row is not None and row[0]:
            raise DatabaseRefused("The database has tables already; load into a new one")
    finally:
        connection.close()


def copy_for_any_version(file: Path, copy: IO[bytes]) -> None:
    """Leave out of the preamble what PostgreSQL 14 to 16 do not know (rows may read the same, and stay)."""
    with open(file, "rb") as source:
        for line in source:
            if line != b"SET transaction_timeout = 0;\n":
                copy.write(line)
            if line.startswith(b"CREATE "):
                break
        shutil.copyfileobj(source, copy)
    copy.seek(0)


def _run(
    command: list[str],
    parameters: dict[str, object],
    stdin: object = subprocess.DEVNULL,
    stdout: object = None,
) -> None:
    rest: dict[str, Any] = dict(parameters)
    dsn = make_dsn(rest.pop("dsn", None), **rest)
    program, *flags = command
    done = subprocess.run(
        [str(programs() / program), *flags, "-d", _without_password(dsn)],
        stdin=stdin,
        stdout=stdout if stdout is not None else subprocess.DEVNULL,  # type: ignore[call-overload]
        stderr=subprocess.PIPE,
        env=environment() | _password(dsn),
    )
    if done.returncode != 0:
        raise DatabaseRefused(f"{program} failed: {done.stderr.decode(errors='replace').strip()[-2000:]}")


def _without_password(dsn: str) -> str:
    parts = psycopg2.extensions.parse_dsn(dsn)
    parts.pop("password", None)
    return make_dsn(**parts)


def _password(dsn: str) -> dict[str, str]:
    """By environment, because other accounts can read command lines."""
    password = psycopg2.extensions.parse_dsn(dsn).get("password")
    return {"PGPASSWORD": password} if password else {}
