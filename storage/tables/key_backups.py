"""The `key_backup_versions` and `key_backup_sessions` tables: encrypted room keys of a user, by backup version."""

from collections.abc import Sequence
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values


class BackupVersion(NamedTuple):
    """A backup. ``etag`` grows with each change of its keys; ``key_count`` is how many it holds."""

    version: int
    algorithm: str
    auth_data_json: str
    etag: int
    key_count: int
    deleted: bool


class BackupSession(NamedTuple):
    """The key of one megolm session; ``session_data_json`` is JSON text."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data_json: str


_VERSION = ", ".join(BackupVersion._fields)
_SESSION = ", ".join(BackupSession._fields)


def create_version(cur: Cursor, user_id: str, algorithm: str, auth_data_json: str) -> int:
    """Begin a new backup; returns its number. The numbers of an account grow from 1."""
    cur.execute("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", (user_id,))
    cur.execute(
        "INSERT INTO key_backup_versions (user_id, version, algorithm, auth_data_json)"
        " SELECT %(user)s, coalesce(max(version), 0) + 1, %(algorithm)s, %(auth)s"
        " FROM key_backup_versions WHERE user_id = %(user)s RETURNING version",
        {"user": user_id, "algorithm": algorithm, "auth": auth_data_json},
    )
    (version,) = cur.fetchone() or (0,)
    return version


def current_version(cur: Cursor, user_id: str) -> BackupVersion | None:
    """The newest backup that was not deleted."""
    cur.execute(
        f"SELECT {_VERSION} FROM key_backup_versions WHERE user_id = %s AND NOT deleted"
        " ORDER BY version DESC LIMIT 1",
        (user_id,),
    )
    row = cur.fetchone()
    return BackupVersion(*row) if row else None


def backup_version(cur: Cursor, user_id: str, version: int, *, lock: bool = False) -> BackupVersion | None:
    """One backup, deleted ones included; ``lock`` keeps others from changing it in this transaction."""
    cur.execute(
        f"SELECT {_VERSION} FROM key_backup_versions WHERE user_id = %s AND version = %s"
        + (" FOR UPDATE" if lock else ""),
        (user_id, version),
    )
    row = cur.fetchone()
    return BackupVersion(*row) if row else None


def set_auth_data(cur: Cursor, user_id: str, version: int, auth_data_json: str) -> None:
    """Replace the algorithm's data of a backup."""
    cur.execute(
        "UPDATE key_backup_versions SET auth_data_json = %s WHERE user_id = %s AND version = %s",
        (auth_data_json, user_id, version),
    )


def delete_version(cur: Cursor, user_id: str, version: int) -> None:
    """Remove a backup's keys and mark it as deleted."""
    cur.execute("DELETE FROM key_backup_sessions WHERE user_id = %s AND version = %s", (user_id, version))
    cur.execute(
        "UPDATE key_backup_versions SET deleted = true, key_count = 0, auth_data_json = 'null'"
        " WHERE user_id = %s AND version = %s",
        (user_id, version),
    )


def store_sessions(
    cur: Cursor, user_id: str, version: int, sessions: Sequence[BackupSession]
) -> tuple[int, int]:
    """Keep keys that are better than what is there; returns ``(etag, key_count)`` afterwards.

    Better: verified, else earlier in the session, else forwarded less often.
    """
    returned = execute_values(
        cur,
        f"INSERT INTO key_backup_sessions AS s (user_id, version, {_SESSION}) VALUES %s"
        " ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET"
        " first_message_index = EXCLUDED.first_message_index, forwarded_count = EXCLUDED.forwarded_count,"
        " is_verified = EXCLUDED.is_verified, session_data_json = EXCLUDED.session_data_json"
        " WHERE (NOT EXCLUDED.is_verified, EXCLUDED.first_message_index, EXCLUDED.forwarded_count)"
        " < (NOT s.is_verified, s.first_message_index, s.forwarded_count) RETURNING xmax = 0",
        [(user_id, version, *session) for session in sessions],
        page_size=1000,
        fetch=True,
    )
    # A row that was inserted, not updated, has no former transaction.
    return _changed(cur, user_id, version, sum(inserted for (inserted,) in returned), bool(returned))


def delete_sessions(
    cur: Cursor, user_id: str, version: int, room_id: str | None, session_id: str | None
) -> tuple[int, int]:
    """Delete keys: one, those of a room, or all; returns ``(etag, key_count)`` afterwards."""
    condition, args = _selection(user_id, version, room_id, session_id)
    cur.execute("DELETE FROM key_backup_sessions WHERE " + condition, args)
    return _changed(cur, user_id, version, -cur.rowcount, cur.rowcount > 0)


def sessions_of(
    cur: Cursor, user_id: str, version: int, room_id: str | None, session_id: str | None
) -> list[BackupSession]:
    """Keys of a backup: one, those of a room, or all."""
    condition, args = _selection(user_id, version, room_id, session_id)
    cur.execute(f"SELECT {_SESSION} FROM key_backup_sessions WHERE {condition} ORDER BY room_id, session_id", args)
    return [BackupSession(*row) for row in cur.fetchall()]


def _selection(
    user_id: str, version: int, room_id: str | None, session_id: str | None
) -> tuple[str, tuple[object, ...]]:
    condition, args = "user_id = %s AND version = %s", (user_id, version)
    if room_id is None:
        return condition, args
    if session_id is None:
        return condition + " AND room_id = %s", (*args, room_id)
    return condition + " AND room_id = %s AND session_id = %s", (*args, room_id, session_id)


def _changed(cur: Cursor, user_id: str, version: int, more: int, changed: bool) -> tuple[int, int]:
    cur.execute(
        "UPDATE key_backup_versions SET etag = etag + %s, key_count = key_count + %s"
        " WHERE user_id = %s AND version = %s RETURNING etag, key_count",
        (int(changed), more, user_id, version),
    )
    etag, count = cur.fetchone() or (0, 0)
    return etag, count
