"""The `server_keys` and `server_key_answers` tables: public keys of other servers and the answers they came in."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values


class KeyRow(NamedTuple):
    """A public key (32 bytes) and until when it is valid, in milliseconds."""

    verify_key: bytes
    valid_until_ts: int


class AnswerRow(NamedTuple):
    """A server's signed answer as JSON text, until when it is valid and when we got it (ms), and its key ids, sorted."""

    answer_json: str
    valid_until_ts: int
    fetched_ts: int
    key_ids: list[str]


MAX_ANSWERS: Final = 10
"""Answers kept of one server: what it may make us store is bounded."""


def keys_of_servers(cur: Cursor, server_names: Sequence[str]) -> dict[str, dict[str, KeyRow]]:
    """The keys that we have of some servers, by name and key id."""
    cur.execute(
        "SELECT server_name, key_id, verify_key, valid_until_ts FROM server_keys WHERE server_name = ANY(%s)",
        (list(server_names),),
    )
    found: dict[str, dict[str, KeyRow]] = {}
    for name, key_id, key, valid_until in cur.fetchall():
        found.setdefault(name, {})[key_id] = KeyRow(bytes(key), valid_until)
    return found


def upsert_keys(cur: Cursor, server_name: str, keys: Mapping[str, KeyRow]) -> None:
    """Store keys of a server, replacing those of the same ids."""
    if keys:
        execute_values(
            cur,
            "INSERT INTO server_keys (server_name, key_id, verify_key, valid_until_ts) VALUES %s "
            "ON CONFLICT (server_name, key_id) DO UPDATE SET verify_key = excluded.verify_key, "
            "valid_until_ts = excluded.valid_until_ts",
            [(server_name, key_id, row.verify_key, row.valid_until_ts) for key_id, row in keys.items()],
        )


def add_answer(cur: Cursor, server_name: str, row: AnswerRow) -> None:
    """Store a signed answer of a server. Older ones stay while they hold a key that it lacks, ten answers in all."""
    cur.execute(
        "DELETE FROM server_key_answers WHERE server_name = %s AND key_ids <@ %s", (server_name, row.key_ids)
    )
    cur.execute(
        "INSERT INTO server_key_answers (server_name, answer_json, valid_until_ts, fetched_ts, key_ids) "
        "VALUES (%s, %s, %s, %s, %s)",
        (server_name, *row),
    )
    cur.execute(
        "DELETE FROM server_key_answers WHERE server_name = %s AND fetched_ts < (SELECT min(fetched_ts) FROM "
        "(SELECT fetched_ts FROM server_key_answers WHERE server_name = %s ORDER BY fetched_ts DESC LIMIT %s) AS kept)",
        (server_name, server_name, MAX_ANSWERS),
    )


def answers_of_server(cur: Cursor, server_name: str) -> list[AnswerRow]:
    """The signed answers of a server that we keep, newest first."""
    cur.execute(
        "SELECT answer_json, valid_until_ts, fetched_ts, key_ids FROM server_key_answers WHERE server_name = %s "
        "ORDER BY fetched_ts DESC",
        (server_name,),
    )
    return [AnswerRow(*row) for row in cur.fetchall()]
