"""The `signatures` table: verified signatures that came later than the key they sign."""

from collections.abc import Sequence
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values


class Signature(NamedTuple):
    """``target_key``: device ID or public key; ``signer_key``: ``<algorithm>:<key name>``."""

    target_user_id: str
    target_key: str
    signer_user_id: str
    signer_key: str
    signature: str


def store_signatures(cur: Cursor, signatures: Sequence[Signature]) -> None:
    """Keep signatures; a newer one by the same key on the same target replaces the old."""
    execute_values(
        cur,
        "INSERT INTO signatures (target_user_id, target_key, signer_user_id, signer_key, signature) VALUES %s"
        " ON CONFLICT (target_user_id, target_key, signer_user_id, signer_key)"
        " DO UPDATE SET signature = EXCLUDED.signature",
        signatures,
    )


def delete_signatures_of(cur: Cursor, target_user_id: str, target_keys: list[str]) -> None:
    """Forget what was said about keys that were replaced or removed."""
    cur.execute(
        "DELETE FROM signatures WHERE target_user_id = %s AND target_key = ANY(%s)", (target_user_id, target_keys)
    )


def own_signatures(cur: Cursor, user_ids: list[str]) -> list[Signature]:
    """Signatures that these users made on their own keys: everybody may see them."""
    cur.execute(
        "SELECT target_user_id, target_key, signer_user_id, signer_key, signature FROM signatures"
        " WHERE target_user_id = ANY(%s) AND signer_user_id = target_user_id",
        (user_ids,),
    )
    return [Signature(*row) for row in cur.fetchall()]


def signatures_on_others(cur: Cursor, signer_user_id: str) -> list[Signature]:
    """Signatures that this user made on keys of other people: only this user may see them."""
    cur.execute(
        "SELECT target_user_id, target_key, signer_user_id, signer_key, signature FROM signatures"
        " WHERE signer_user_id = %(me)s AND target_user_id <> %(me)s",
        {"me": signer_user_id},
    )
    return [Signature(*row) for row in cur.fetchall()]
