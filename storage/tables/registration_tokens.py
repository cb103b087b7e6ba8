"""The `registration_tokens` table: who may register although registration is closed."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class RegistrationTokenRow(NamedTuple):
    """A registration token. None in ``uses_allowed`` or ``expires_ts`` means no limit."""

    token: str
    uses_allowed: int | None
    completed: int
    expires_ts: int | None
    makes_admin: bool


_VALID = "(uses_allowed IS NULL OR completed < uses_allowed) AND (expires_ts IS NULL OR expires_ts > %s)"


def insert_token(cur: Cursor, row: RegistrationTokenRow) -> bool:
    """Add a token; False when it exists."""
    cur.execute(
        "INSERT INTO registration_tokens (token, uses_allowed, completed, expires_ts, makes_admin)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        tuple(row),
    )
    return cur.rowcount == 1


def valid_token(cur: Cursor, token: str, now: int) -> RegistrationTokenRow | None:
    """The token when it could be used at ``now``."""
    cur.execute(
        "SELECT token, uses_allowed, completed, expires_ts, makes_admin FROM registration_tokens"
        f" WHERE token = %s AND {_VALID}",
        (token, now),
    )
    row = cur.fetchone()
    return RegistrationTokenRow(*row) if row else None


def admin_token_exists(cur: Cursor, now: int) -> bool:
    """True while a token that makes an administrator waits to be used."""
    cur.execute(f"SELECT EXISTS (SELECT 1 FROM registration_tokens WHERE makes_admin AND {_VALID})", (now,))
    row = cur.fetchone()
    return bool(row and row[0])


def use_token(cur: Cursor, token: str, now: int) -> RegistrationTokenRow | None:
    """Count one use in the transaction that makes the account; None when it is not valid (any more)."""
    cur.execute(
        f"UPDATE registration_tokens SET completed = completed + 1 WHERE token = %s AND {_VALID}"
        " RETURNING token, uses_allowed, completed, expires_ts, makes_admin",
        (token, now),
    )
    row = cur.fetchone()
    return RegistrationTokenRow(*row) if row else None


def delete_admin_tokens(cur: Cursor) -> None:
    """Delete the tokens that make administrators."""
    cur.execute("DELETE FROM registration_tokens WHERE makes_admin")
