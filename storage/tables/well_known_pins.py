"""The `well_known_pins` table: domains whose signed well-known record was seen."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class PinRow(NamedTuple):
    """Keys (JSON object of key id to unpadded base64), last good ``m.server``, and its record's end (ms)."""

    keys_json: str
    address: str
    valid_until_ts: int


def pin_of_domain(cur: Cursor, server_name: str) -> PinRow | None:
    """The pin of a domain."""
    cur.execute(
        "SELECT keys_json, address, valid_until_ts FROM well_known_pins WHERE server_name = %s", (server_name,)
    )
    row = cur.fetchone()
    return PinRow(*row) if row else None


def upsert_pin(cur: Cursor, server_name: str, row: PinRow, now: int) -> None:
    """Pin a domain, or renew its pin."""
    cur.execute(
        "INSERT INTO well_known_pins (server_name, keys_json, address, valid_until_ts, pinned_ts) "
        "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (server_name) DO UPDATE SET keys_json = excluded.keys_json, "
        "address = excluded.address, valid_until_ts = excluded.valid_until_ts",
        (server_name, *row, now),
    )


def delete_pin(cur: Cursor, server_name: str) -> bool:
    """Forget a domain's pin, on an operator's word; whether there was one."""
    cur.execute("DELETE FROM well_known_pins WHERE server_name = %s", (server_name,))
    return cur.rowcount > 0
