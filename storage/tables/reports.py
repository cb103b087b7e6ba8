"""The `reports` table: what users reported to the people who run this server."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class Report(NamedTuple):
    """One report; ``kind`` is ``room``, ``event`` or ``user``. ``user_id`` is who is reported, or the event's sender.

    ``reported_ts`` is in milliseconds.
    """

    reported_ts: int
    reporter: str
    kind: str
    room_id: str | None
    event_id: str | None
    user_id: str | None
    reason: str | None


def insert_report(cur: Cursor, report: Report) -> None:
    """Keep a report."""
    columns = ", ".join(Report._fields)
    cur.execute(f"INSERT INTO reports ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s)", tuple(report))


def reports(cur: Cursor, limit: int) -> list[Report]:
    """The newest reports, newest first."""
    cur.execute(f"SELECT {', '.join(Report._fields)} FROM reports ORDER BY id DESC LIMIT %s", (limit,))
    return [Report(*row) for row in cur.fetchall()]
