"""The `fallback_keys` table: what is given out when no one-time key is left."""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

from storage.tables.one_time_keys import NamedKey


def store_fallback_keys(cur: Cursor, user_id: str, device_id: str, keys: Sequence[NamedKey]) -> None:
    """Replace the fallback key of each algorithm named. The same key again keeps its `used` flag."""
    cur.execute(
        "INSERT INTO fallback_keys AS f (user_id, device_id, algorithm, key_id, key_json)"
        " SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::text[])"
        " ON CONFLICT (user_id, device_id, algorithm) DO UPDATE"
        " SET key_id = EXCLUDED.key_id, key_json = EXCLUDED.key_json, used = false"
        " WHERE (f.key_id, f.key_json) <> (EXCLUDED.key_id, EXCLUDED.key_json)",
        (user_id, device_id, *map(list, zip(*keys, strict=True))),
    )
