"""The `access_tokens` table. A token is known by its SHA-256 hash only."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class TokenRow(NamedTuple):
    """An access token with what must be known of its account to let a request in."""

    token_id: int
    user_id: str
    device_id: str | None
    refresh_id: int | None
    expires_ts: int | None
    is_admin: bool
    is_guest: bool
    deactivated: bool
    locked: bool


class RevokedToken(NamedTuple):
    """A token that has just been deleted."""

    token_id: int
    user_id: str
    device_id: str | None


def insert_access_token(
    cur: Cursor,
    token_hash: bytes,
    user_id: str,
    device_id: str | None,
    now: int,
    expires_ts: int | None = None,
    refresh_id: int | None = None,
) -> int:
    """Store a new token; returns its id."""
    cur.execute(
        "INSERT INTO access_tokens (token_hash, user_id, device_id, refresh_id, created_ts, expires_ts)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING token_id",
        (token_hash, user_id, device_id, refresh_id, now, expires_ts),
    )
    row = cur.fetchone()
    assert row is not None
    return row[0]


def token_by_hash(cur: Cursor, token_hash: bytes) -> TokenRow | None:
    """The token with this hash, expired or not."""
    cur.execute(
        "SELECT t.token_id, t.user_id, t.device_id, t.refresh_id, t.expires_ts,"
        " u.is_admin, u.is_guest, u.deactivated, u.locked"
        " FROM access_tokens t JOIN users u USING (user_id) WHERE t.token_hash = %s",
        (token_hash,),
    )
    row = cur.fetchone()
    return TokenRow(*row) if row else None


def _revoke(cur: Cursor, condition: str, values: tuple[object, ...]) -> list[RevokedToken]:
    cur.execute(
        f"DELETE FROM access_tokens WHERE {condition} RETURNING token_id, user_id, device_id", values
    )
    return [RevokedToken(*row) for row in cur.fetchall()]


def revoke_token(cur: Cursor, token_id: int) -> list[RevokedToken]:
    """Delete one token."""
    return _revoke(cur, "token_id = %s", (token_id,))


def revoke_device_tokens(cur: Cursor, user_id: str, device_ids: list[str]) -> list[RevokedToken]:
    """Delete the tokens of some devices."""
    return _revoke(cur, "user_id = %s AND device_id = ANY(%s)", (user_id, device_ids))


def revoke_user_tokens(cur: Cursor, user_id: str, keep: int | None = None) -> list[RevokedToken]:
    """Delete all tokens of an account, apart from the token id ``keep``."""
    return _revoke(cur, "user_id = %s AND token_id IS DISTINCT FROM %s", (user_id, keep))


def revoke_refreshed(cur: Cursor, refresh_id: int) -> list[RevokedToken]:
    """Delete the tokens that were handed out with a refresh token."""
    return _revoke(cur, "refresh_id = %s", (refresh_id,))


def delete_expired(cur: Cursor, before: int) -> None:
    """Delete tokens that expired before ``before``, apart from those of sessions that can still be refreshed."""
    cur.execute("DELETE FROM access_tokens WHERE expires_ts < %s AND refresh_id IS NULL", (before,))
