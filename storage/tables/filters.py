"""The `filters` table: what clients stored for their syncs, opaque JSON text here."""

from psycopg2.extensions import cursor as Cursor


def store_filter(cur: Cursor, user_id: str, filter_id: str, filter_json: str, most: int) -> bool:
    """Keep a filter; one that is there already stays. False when the user has ``most`` others."""
    cur.execute(
        "INSERT INTO filters (user_id, filter_id, filter_json)"
        " SELECT %(user)s, %(id)s, %(json)s WHERE"
        " (SELECT count(*) FROM filters WHERE user_id = %(user)s AND filter_id <> %(id)s) < %(most)s"
        " ON CONFLICT (user_id, filter_id) DO UPDATE SET filter_json = EXCLUDED.filter_json",
        {"user": user_id, "id": filter_id, "json": filter_json, "most": most},
    )
    return cur.rowcount == 1


def stored_filter(cur: Cursor, user_id: str, filter_id: str) -> str | None:
    """A filter as JSON text, None when the user has none of that name."""
    cur.execute(
        "SELECT filter_json FROM filters WHERE user_id = %s AND filter_id = %s", (user_id, filter_id)
    )
    row = cur.fetchone()
    return None if row is None else row[0]
