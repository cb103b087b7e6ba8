"""The `profiles` table: one JSON object for each account, opaque to the storage."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class DirectoryRow(NamedTuple):
    """A hit of the user directory: the profile as JSON bytes."""

    user_id: str
    fields: bytes


def profile(cur: Cursor, user_id: str) -> bytes | None:
    """The profile as JSON bytes; None when there is no such account or it is deactivated."""
    cur.execute(
        "SELECT p.fields FROM users u LEFT JOIN profiles p USING (user_id)"
        " WHERE u.user_id = %s AND NOT u.deactivated",
        (user_id,),
    )
    row = cur.fetchone()
    if row is None:
        return None
    return b"{}" if row[0] is None else bytes(row[0])


def lock_profile(cur: Cursor, user_id: str) -> bytes | None:
    """Like :func:`profile`, and nobody else changes it until this transaction ends."""
    cur.execute("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", (user_id,))
    return profile(cur, user_id)


def store_profile(cur: Cursor, user_id: str, fields: bytes, display_name_lower: str | None) -> None:
    """Replace the profile. ``display_name_lower`` is what the directory searches; no NUL in it."""
    cur.execute(
        "INSERT INTO profiles (user_id, fields, user_id_lower, display_name_lower) VALUES (%s, %s, lower(%s), %s)"
        " ON CONFLICT (user_id) DO UPDATE SET fields = EXCLUDED.fields,"
        " display_name_lower = EXCLUDED.display_name_lower",
        (user_id, fields, user_id, display_name_lower),
    )


def delete_profile(cur: Cursor, user_id: str) -> None:
    """Forget a profile."""
    cur.execute("DELETE FROM profiles WHERE user_id = %s", (user_id,))


def search_profiles(cur: Cursor, term: str, limit: int) -> list[DirectoryRow]:
    """Active people whose user ID or display name contains ``term`` (lower case); prefixes come first."""
    pattern = term.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    cur.execute(
        "SELECT p.user_id, p.fields FROM profiles p JOIN users u USING (user_id)"
        " WHERE NOT u.deactivated AND NOT u.is_guest"
        " AND (p.user_id_lower LIKE %(inner)s OR p.display_name_lower LIKE %(inner)s)"
        " ORDER BY NOT (p.user_id_lower LIKE %(id_start)s OR coalesce(p.display_name_lower LIKE %(start)s, false)),"
        " p.user_id LIMIT %(limit)s",
        {"inner": f"%{pattern}%", "start": f"{pattern}%", "id_start": f"@{pattern}%", "limit": limit},
    )
    return [DirectoryRow(row[0], bytes(row[1])) for row in cur.fetchall()]
