"""The `one_time_keys` table: keys that are given out once each, in upload order."""

from collections.abc import Sequence
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class NamedKey(NamedTuple):
    """A one-time or fallback key: its name is ``<algorithm>:<key_id>``."""

    algorithm: str
    key_id: str
    key_json: str


class Wanted(NamedTuple):
    """Somebody asks for a key of this algorithm of this device."""

    user_id: str
    device_id: str
    algorithm: str


class Claimed(NamedTuple):
    """A key that was given out; ``fallback`` when no one-time key was left."""

    user_id: str
    device_id: str
    algorithm: str
    key_id: str
    key_json: str
    fallback: bool


def add_one_time_keys(cur: Cursor, user_id: str, device_id: str, keys: Sequence[NamedKey]) -> list[NamedKey]:
    """Store new keys, in one statement; returns those whose name the device uses already."""
    cur.execute(
        "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key_json)"
        " SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::text[])"
        " ON CONFLICT DO NOTHING RETURNING algorithm, key_id",
        (user_id, device_id, *map(list, zip(*keys, strict=True))),
    )
    if cur.rowcount == len(keys):
        return []
    stored = set(cur.fetchall())
    return [key for key in keys if (key.algorithm, key.key_id) not in stored]


def one_time_keys_of(cur: Cursor, user_id: str, device_id: str) -> dict[tuple[str, str], str]:
    """All unclaimed keys of a device: ``(algorithm, key ID)`` to JSON text."""
    cur.execute(
        "SELECT algorithm, key_id, key_json FROM one_time_keys WHERE user_id = %s AND device_id = %s",
        (user_id, device_id),
    )
    return {(algorithm, key_id): key_json for algorithm, key_id, key_json in cur.fetchall()}


def key_counts(cur: Cursor, user_id: str, device_id: str) -> tuple[dict[str, int], list[str]]:
    """Unclaimed one-time keys of a device by algorithm, and the algorithms with an unused fallback key."""
    cur.execute(
        "SELECT algorithm, count(*) FROM one_time_keys WHERE user_id = %(user)s AND device_id = %(device)s"
        " GROUP BY algorithm UNION ALL SELECT algorithm, -1 FROM fallback_keys"
        " WHERE user_id = %(user)s AND device_id = %(device)s AND NOT used",
        {"user": user_id, "device": device_id},
    )
    rows = cur.fetchall()
    counts = {algorithm: count for algorithm, count in rows if count >= 0}
    return counts, sorted(algorithm for algorithm, count in rows if count < 0)


def claim_keys(cur: Cursor, wanted: Sequence[Wanted]) -> list[Claimed]:
    """Take one key for each wish; wishes that cannot be met are missing from the answer.

    The function `claim_key` (schema 0020) says how. Sorted, so that two calls lock fallback keys in the same order.
    """
    cur.execute(
        "SELECT w.*, k.* FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (user_id, device_id, algorithm)"
        " CROSS JOIN LATERAL claim_key(w.user_id, w.device_id, w.algorithm) AS k",
        list(map(list, zip(*sorted(wanted), strict=True))),
    )
    return [Claimed(*row) for row in cur.fetchall()]
