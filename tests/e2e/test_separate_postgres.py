"""A PostgreSQL of the operator's: busy, going away and coming back, and wanted by two servers at once."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from storage.tables.migrations import read_migrations
from tests.bench.servers import free_port
from tests.e2e.busy_database import FolkmootBeside, trial
from tests.fakes.postgres import SeparatePostgres


@pytest.mark.timeout(180)
def test_i10_people_register_and_publish_keys_while_postgresql_comes_and_goes() -> None:
    """A power cut, a clean restart and a server that stands still, with thirty people at work."""
    result = trial(people=30, outages=3, seconds=1.0)
    assert result["missing"] == []
    assert result["odd"] == []
    assert result["answers"][503] > 0
    assert result["acknowledged"] >= 60


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter."""
    made = Path(tempfile.mkdtemp(prefix="folkmoot-separate-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_of_two_servers_on_one_database_one_is_refused(folder: Path) -> None:
    """The schema is made once, and the tables belong to the log that came first."""
    postgres = SeparatePostgres(folder, tcp_port=free_port())
    postgres.start()
    try:
        parameters = postgres.create_database("folkmoot")
        servers = [FolkmootBeside(folder / name, parameters) for name in ("one", "other")]

        async def start_both() -> list[float | BaseException]:
            return await asyncio.gather(*(server.start() for server in servers), return_exceptions=True)

        outcome = asyncio.run(start_both())
        refused = [str(found) for found in outcome if isinstance(found, RuntimeError)]
        assert len(refused) == 1, outcome
        assert "The database belongs to the log" in refused[0]
        assert "Traceback" not in refused[0]
        connection = psycopg2.connect(**parameters)  # type: ignore[call-overload]
        cur = connection.cursor()
        cur.execute("SELECT number FROM schema_migrations ORDER BY number")
        assert [row[0] for row in cur.fetchall()] == [migration.number for migration in read_migrations()]
        connection.close()
        for server in servers:
            server.stop()
        first = next(server for server, found in zip(servers, outcome, strict=True) if isinstance(found, float))
        asyncio.run(first.start())
        first.stop()
    finally:
        postgres.stop()
