"""The `refresh_tokens` table.

A refresh makes a successor that `replaces` the token it was made with. The old one stays until the
successor, or the access token that came with it, is used for the first time, so that a client which
lost the answer can ask again (Client-Server API, "Refreshing access tokens").
"""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class RefreshRow(NamedTuple):
    """A refresh token and whether its account may still use it."""

    refresh_id: int
    user_id: str
    device_id: str
    replaces: int | None
    expires_ts: int | None
    session_expires_ts: int | None
    deactivated: bool
    locked: bool


def insert_refresh_token(
    cur: Cursor,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    expires_ts: int | None,
    session_expires_ts: int | None,
    replaces: int | None = None,
) -> int:
    """Store a new refresh token; returns its id."""
    cur.execute(
        "INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts, replaces)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING refresh_id",
        (token_hash, user_id, device_id, expires_ts, session_expires_ts, replaces),
    )
    row = cur.fetchone()
    assert row is not None
    return row[0]


def lock_refresh_token(cur: Cursor, token_hash: bytes) -> RefreshRow | None:
    """The refresh token with this hash, locked until the transaction ends."""
    cur.execute(
        "SELECT r.refresh_id, r.user_id, r.device_id, r.replaces, r.expires_ts, r.session_expires_ts,"
        " u.deactivated, u.locked FROM refresh_tokens r JOIN users u USING (user_id)"
        " WHERE r.token_hash = %s FOR UPDATE OF r",
        (token_hash,),
    )
    row = cur.fetchone()
    return RefreshRow(*row) if row else None


def successors(cur: Cursor, refresh_id: int) -> list[int]:
    """Ids of the refresh tokens made with this one."""
    cur.execute("SELECT refresh_id FROM refresh_tokens WHERE replaces = %s", (refresh_id,))
    return [row[0] for row in cur.fetchall()]


def replaced_by(cur: Cursor, refresh_id: int) -> int | None:
    """Id of the predecessor that this refresh token still has."""
    cur.execute("SELECT replaces FROM refresh_tokens WHERE refresh_id = %s", (refresh_id,))
    row = cur.fetchone()
    return row[0] if row else None


def forget_predecessor(cur: Cursor, refresh_id: int) -> None:
    """This refresh token has come into use: it replaces nothing any more."""
    cur.execute("UPDATE refresh_tokens SET replaces = NULL WHERE refresh_id = %s", (refresh_id,))


def delete_refresh_tokens(cur: Cursor, refresh_ids: list[int]) -> None:
    """Delete refresh tokens; their access tokens must have been revoked before."""
    cur.execute("DELETE FROM refresh_tokens WHERE refresh_id = ANY(%s)", (refresh_ids,))


def delete_device_refresh_tokens(cur: Cursor, user_id: str, device_ids: list[str]) -> None:
    """Delete all refresh tokens of some devices."""
    cur.execute(
        "DELETE FROM refresh_tokens WHERE user_id = %s AND device_id = ANY(%s)", (user_id, device_ids)
    )


def delete_expired_sessions(cur: Cursor, before: int) -> None:
    """Delete refresh tokens that nobody can use since before ``before``, each with its access tokens, which are as old."""
    cur.execute(
        "DELETE FROM refresh_tokens r WHERE least(r.expires_ts, r.session_expires_ts) < %(before)s"
        " AND NOT EXISTS (SELECT 1 FROM access_tokens t WHERE t.refresh_id = r.refresh_id"
        " AND (t.expires_ts IS NULL OR t.expires_ts >= %(before)s))",
        {"before": before},
    )
