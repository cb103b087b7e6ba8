"""The `log_binding` table: tables and log belong together, and a second server cannot slip in between.

The data directory of a log is used by one server at a time; so tables that know their log are, too.
"""

from psycopg2.extensions import cursor as Cursor

from storage.tables.errors import DatabaseRefused


def bind_log(cur: Cursor, epoch: str) -> None:
    """Bind the tables to the log with this epoch; raises DatabaseRefused when they belong to another one."""
    cur.execute("INSERT INTO log_binding (epoch) VALUES (%s) ON CONFLICT DO NOTHING", (epoch,))
    cur.execute("SELECT epoch FROM log_binding")
    row = cur.fetchone()
    assert row is not None
    if row[0] != epoch:
        raise DatabaseRefused(
            f"The database belongs to the log {row[0]}, and the one in the data directory is {epoch}. Name the data "
            "directory and the `database:` that belong together. If its log is lost for good and the accounts are to "
            "go on without their rooms: DELETE FROM log_binding"
        )


def runs(cur: Cursor) -> int:
    """How many runs of the server these tables have seen begin. They have to be bound."""
    cur.execute("SELECT runs FROM log_binding")
    row = cur.fetchone()
    assert row is not None
    return int(row[0])


def set_runs(cur: Cursor, number: int) -> None:
    """A run begins."""
    cur.execute("UPDATE log_binding SET runs = %s", (number,))
