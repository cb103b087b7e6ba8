"""Are log and tables of the same time? One of them restored without the other would contradict it: sessions of people who have
left, one-time keys that were given out already.

Both count the runs of the server. A run begins in four steps, each durable before the next: the counts are compared, the
log announces the next number, the tables take it, the log takes it. So a crash leaves the tables with the log's number
or with the one that it has announced, and anything else was restored.
"""

from typing import Any

from psycopg2.extensions import cursor as Cursor
from twisted.logger import Logger

from storage.log.append import ANNOUNCED_RUN_KEY, MISMATCH_KEY, RUN_KEY, Log
from storage.log.catalog import META
from storage.log.keys import from_u64, u64
from storage.tables.database import Database
from storage.tables.errors import DatabaseRefused
from storage.tables.log_binding import runs, set_runs

_report = Logger()


async def begin_run(database: Database, log: Log) -> None:
    """Count a run. Raises DatabaseRefused when one store is older than the other and the operator has not accepted that."""
    of_log, announced = _number(log, RUN_KEY), _number(log, ANNOUNCED_RUN_KEY)
    of_tables: int = await database.run(runs)
    if of_tables not in (of_log, announced):
        older, newer = ("tables", "rooms") if of_tables < of_log else ("rooms", "tables")
        if log.get(META, MISMATCH_KEY) is None:
            raise DatabaseRefused(
                f"The {older} come from an earlier time than the {newer} (the log of the rooms counts {of_log} runs, the "
                f"tables {of_tables}). Restore both from the same backup. If there is none, and you accept what is lost: "
                "folkmoot new-epoch --accept-mismatch"
            )
        _report.warn("the {older} are older than the {newer}, which the operator accepts", older=older, newer=newer)
        if older == "tables":
            await database.run(_forget_keys)
    number = max(of_log, announced, of_tables) + 1
    await _write(log, {RUN_KEY: u64(of_tables), ANNOUNCED_RUN_KEY: u64(number)})
    await database.run(lambda cur: set_runs(cur, number))
    await _write(log, {RUN_KEY: u64(number), MISMATCH_KEY: None})


def _forget_keys(cur: Cursor) -> None:
    """Some may have been given out since the time of the tables. Devices that see that none are left upload new ones."""
    cur.execute("DELETE FROM one_time_keys")


def _number(log: Log, key: bytes) -> int:
    value = log.get(META, key)
    return 0 if value is None else from_u64(value)


async def _write(log: Log, rows: dict[bytes, Any]) -> None:
    batch = log.begin()
    for key, value in rows.items():
        if value is None:
            batch.delete(META, key)
        else:
            batch.put(META, key, value)
    await log.append(batch)
