"""The `login_tokens` and `openid_tokens` tables: short-lived tokens, stored as SHA-256 hashes."""

from psycopg2.extensions import cursor as Cursor


def insert_login_token(cur: Cursor, token_hash: bytes, user_id: str, expires_ts: int, now: int) -> None:
    """Store a token for `m.login.token`; forgets those that have expired."""
    cur.execute("DELETE FROM login_tokens WHERE expires_ts < %s", (now,))
    cur.execute(
        "INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES (%s, %s, %s)",
        (token_hash, user_id, expires_ts),
    )


def take_login_token(cur: Cursor, token_hash: bytes, now: int) -> str | None:
    """Use a login token up: the account that it logs in, or None. A second call gets None."""
    cur.execute(
        "DELETE FROM login_tokens WHERE token_hash = %s RETURNING user_id, expires_ts", (token_hash,)
    )
    row = cur.fetchone()
    return row[0] if row and row[1] > now else None


def delete_login_tokens(cur: Cursor, user_id: str) -> None:
    """Forget all login tokens and OpenID tokens of an account."""
    cur.execute("DELETE FROM login_tokens WHERE user_id = %s", (user_id,))
    cur.execute("DELETE FROM openid_tokens WHERE user_id = %s", (user_id,))


def insert_openid_token(cur: Cursor, token_hash: bytes, user_id: str, expires_ts: int, now: int) -> None:
    """Store an OpenID token; forgets those that have expired."""
    cur.execute("DELETE FROM openid_tokens WHERE expires_ts < %s", (now,))
    cur.execute(
        "INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES (%s, %s, %s)",
        (token_hash, user_id, expires_ts),
    )


def user_of_openid_token(cur: Cursor, token_hash: bytes, now: int) -> str | None:
    """The account for which an OpenID token vouches."""
    cur.execute(
        "SELECT user_id FROM openid_tokens WHERE token_hash = %s AND expires_ts > %s", (token_hash, now)
    )
    row = cur.fetchone()
    return row[0] if row else None
