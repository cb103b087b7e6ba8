"""The schema as numbered SQL files, applied in order, each in one transaction, never changed afterwards.

Two servers that start on one database at the same time take turns by an advisory lock. A file that was applied is
known by its checksum, so that editing it is noticed instead of silently having no effect.
"""

import hashlib
import itertools
import re
import time
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

from psycopg2.extensions import connection as PgConnection

from storage.tables.errors import DatabaseRefused

LOCK = 0x666F6C6B6D6F6F74  # "folkmoot"

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_ts bigint NOT NULL
)
"""


class Migration(NamedTuple):
    """One file ``NNNN_name.sql``."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What is remembered of a file that was applied: SHA-256 in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """The migrations of this release in order, or those of ``folder``."""
    folder = folder if folder is not None else resources.files("storage.tables").joinpath("schema")
    found = []
    for file in folder.iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            found.append(Migration(int(match[1]), match[2], file.read_text("utf-8")))
    found.sort()
    for one, other in itertools.pairwise(found):
        if one.number == other.number:
            raise ValueError(f"two migrations have the number {one.number:04}: {one.name} and {other.name}")
    return found


def migrate(connection: PgConnection, migrations: Sequence[Migration]) -> list[int]:
    """Apply what is missing; the numbers applied. ``connection`` is in autocommit mode and is left so.

    Raises DatabaseRefused when the database is of a newer release or an applied file was changed.
    """
    applied: list[int] = []
    while (number := _apply_next(connection, migrations)) is not None:
        applied.append(number)
    return applied


def _apply_next(connection: PgConnection, migrations: Sequence[Migration]) -> int | None:
    with connection.cursor() as cur:
        cur.execute("BEGIN")
        try:
            cur.execute("SET LOCAL statement_timeout = 0")
            cur.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            cur.execute(_TABLE)
            cur.execute("SELECT number, name, checksum FROM schema_migrations")
            missing = _missing(
                migrations, {number: (name, checksum) for number, name, checksum in cur.fetchall()}
            )
            if missing is not None:
                cur.execute(missing.sql)
                cur.execute(
                    "INSERT INTO schema_migrations (number, name, checksum, applied_ts) VALUES (%s, %s, %s, %s)",
                    (missing.number, missing.name, missing.checksum, int(time.time() * 1000)),
                )
        except BaseException:
            if not connection.closed:
                cur.execute("ROLLBACK")
            raise
        cur.execute("COMMIT")
    return missing.number if missing is not None else None


def _missing(migrations: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> Migration | None:
    """The first migration still to apply; refuses a database that these migrations don't fit."""
    known = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in sorted(applied.items()):
        if number not in known:
            raise DatabaseRefused(
                f"The database has the schema change {number:04}_{name} of a newer Folkmoot; "
                "run that version, or restore a backup made by this one"
            )
        if known[number].checksum != checksum:
            raise DatabaseRefused(
                f"storage/tables/schema/{number:04}_{known[number].name}.sql was changed after it was applied; "
                "restore the file and put the change into a new one"
            )
    return next((migration for migration in migrations if migration.number not in applied), None)
