"""The `cross_signing_keys` table: a user's master, self-signing and user-signing keys."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class CrossSigningKey(NamedTuple):
    """``usage`` is ``master``, ``self_signing`` or ``user_signing``; ``public_key`` unpadded base64."""

    user_id: str
    usage: str
    public_key: str
    key_json: str


def store_cross_signing_key(cur: Cursor, key: CrossSigningKey) -> None:
    """Set the user's key for this usage."""
    cur.execute(
        "INSERT INTO cross_signing_keys (user_id, usage, public_key, key_json) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (user_id, usage) DO UPDATE SET public_key = EXCLUDED.public_key, key_json = EXCLUDED.key_json",
        key,
    )


def delete_cross_signing_keys(cur: Cursor, user_id: str, usages: list[str]) -> None:
    """Remove a user's keys of these usages."""
    cur.execute("DELETE FROM cross_signing_keys WHERE user_id = %s AND usage = ANY(%s)", (user_id, usages))


def cross_signing_keys_of(cur: Cursor, user_ids: list[str]) -> list[CrossSigningKey]:
    """The keys of these users."""
    cur.execute(
        "SELECT user_id, usage, public_key, key_json FROM cross_signing_keys WHERE user_id = ANY(%s)",
        (user_ids,),
    )
    return [CrossSigningKey(*row) for row in cur.fetchall()]


def lock_cross_signing(cur: Cursor, user_id: str) -> None:
    """Whoever changes this user's keys or signatures waits until this transaction ends."""
    cur.execute("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", (user_id,))


def device_exists(cur: Cursor, user_id: str, device_ids: list[str]) -> bool:
    """Whether one of these is a device of the user (a cross-signing key may not be named like a device)."""
    cur.execute("SELECT 1 FROM devices WHERE user_id = %s AND device_id = ANY(%s)", (user_id, device_ids))
    return cur.fetchone() is not None
