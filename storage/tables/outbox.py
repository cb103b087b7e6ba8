"""The outbox: changes made in PostgreSQL that clients must see in the log.

A row is written in the same SQL transaction as the change; a follower appends it to the log and removes it once the
append is durable. A crash between the two repeats the row, so whoever reads the entry must bear seeing it twice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from psycopg2.extensions import cursor as Cursor


class OutboxRow(NamedTuple):
    """One change that is still on its way to the log, oldest first by ``id``."""

    id: int
    kind: str
    payload: dict[str, Any]


def add(cur: Cursor, kind: str, payload: dict[str, Any]) -> None:
    """Leave ``payload`` for the follower, to appear in the log if and only if this transaction commits."""
    text = orjson.dumps(payload).decode()
    cur.execute("INSERT INTO outbox (kind, payload) VALUES (%s, %s)", (kind, text))
    if hasattr(cur, "outbox_written"):
        cur.outbox_written = True  # so that the Database wakes the follower after the commit


def pending(cur: Cursor, limit: int) -> list[OutboxRow]:
    """The oldest rows still waiting, at most ``limit``."""
    cur.execute("SELECT id, kind, payload FROM outbox ORDER BY id LIMIT %s", (limit,))
    return [OutboxRow(id_, kind, orjson.loads(payload)) for id_, kind, payload in cur.fetchall()]


def remove(cur: Cursor, ids: Sequence[int]) -> None:
    """Forget rows whose log entries are durable. Removing a row twice does nothing."""
    cur.execute("DELETE FROM outbox WHERE id = ANY(%s)", (list(ids),))
