"""The `users` and `user_threepids` tables: accounts of this server."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class UserRow(NamedTuple):
    """One account. ``password_hash`` is None when nobody can log in with a password."""

    user_id: str
    password_hash: str | None
    created_ts: int
    is_admin: bool = False
    is_guest: bool = False
    deactivated: bool = False
    erased: bool = False
    locked: bool = False
    suspended: bool = False
    app_service: str | None = None


class ThreepidRow(NamedTuple):
    """An e-mail address or phone number that belongs to an account."""

    medium: str
    address: str
    validated_ts: int
    added_ts: int


_COLUMNS = ", ".join(UserRow._fields)


def insert_user(cur: Cursor, row: UserRow) -> bool:
    """Add an account; False when the user ID is taken."""
    cur.execute(
        f"INSERT INTO users ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (user_id) DO NOTHING",
        tuple(row),
    )
    return cur.rowcount == 1


def upgrade_guest(cur: Cursor, user_id: str, password_hash: str | None, is_admin: bool) -> bool:
    """Make a guest's account one of a person; False when there is no such guest."""
    cur.execute(
        "UPDATE users SET is_guest = false, password_hash = %s, is_admin = %s"
        " WHERE user_id = %s AND is_guest AND NOT deactivated AND NOT locked",
        (password_hash, is_admin, user_id),
    )
    return cur.rowcount == 1


def user_by_id(cur: Cursor, user_id: str) -> UserRow | None:
    """The account with this user ID, also when it is deactivated."""
    cur.execute(f"SELECT {_COLUMNS} FROM users WHERE user_id = %s", (user_id,))
    row = cur.fetchone()
    return UserRow(*row) if row else None


def known_users(cur: Cursor, user_ids: list[str]) -> set[str]:
    """Those of ``user_ids`` that have an account here which is not deactivated."""
    cur.execute("SELECT user_id FROM users WHERE user_id = ANY(%s) AND NOT deactivated", (user_ids,))
    return {row[0] for row in cur.fetchall()}


def any_user_exists(cur: Cursor) -> bool:
    """True as soon as one account of a person exists; guests do not count."""
    cur.execute("SELECT EXISTS (SELECT 1 FROM users WHERE NOT is_guest AND app_service IS NULL)")
    row = cur.fetchone()
    return bool(row and row[0])


def set_password(cur: Cursor, user_id: str, password_hash: str | None) -> None:
    """Replace the password hash; None ends login by password."""
    cur.execute("UPDATE users SET password_hash = %s WHERE user_id = %s", (password_hash, user_id))


def set_locked(cur: Cursor, user_id: str, locked: bool) -> None:
    """Lock or unlock an account (Client-Server API, "Account locking")."""
    cur.execute("UPDATE users SET locked = %s WHERE user_id = %s", (locked, user_id))


def deactivate_user(cur: Cursor, user_id: str, erase: bool) -> bool:
    """Mark an account as deactivated and drop its password; False when it was so already."""
    cur.execute(
        "UPDATE users SET deactivated = true, erased = erased OR %s, password_hash = NULL, is_admin = false"
        " WHERE user_id = %s AND NOT deactivated",
        (erase, user_id),
    )
    return cur.rowcount == 1


def threepids_of(cur: Cursor, user_id: str) -> list[ThreepidRow]:
    """Third-party identifiers of an account, oldest first."""
    cur.execute(
        "SELECT medium, address, validated_ts, added_ts FROM user_threepids WHERE user_id = %s"
        " ORDER BY added_ts, medium, address",
        (user_id,),
    )
    return [ThreepidRow(*row) for row in cur.fetchall()]


def add_threepid(cur: Cursor, user_id: str, row: ThreepidRow) -> bool:
    """Attach an identifier to an account; False when another account or this one has it."""
    cur.execute(
        "INSERT INTO user_threepids (medium, address, user_id, validated_ts, added_ts)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (row.medium, row.address, user_id, row.validated_ts, row.added_ts),
    )
    return cur.rowcount == 1


def user_with_threepid(cur: Cursor, medium: str, address: str) -> str | None:
    """The account that an identifier belongs to."""
    cur.execute("SELECT user_id FROM user_threepids WHERE medium = %s AND address = %s", (medium, address))
    row = cur.fetchone()
    return row[0] if row else None


def delete_threepid(cur: Cursor, user_id: str, medium: str, address: str) -> None:
    """Detach one identifier from an account."""
    cur.execute(
        "DELETE FROM user_threepids WHERE user_id = %s AND medium = %s AND address = %s",
        (user_id, medium, address),
    )


def delete_threepids(cur: Cursor, user_id: str) -> None:
    """Detach all identifiers from an account."""
    cur.execute("DELETE FROM user_threepids WHERE user_id = %s", (user_id,))
