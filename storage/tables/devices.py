"""The `devices` table: one row for each place where an account is logged in."""

from collections.abc import Iterable
from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values


class DeviceRow(NamedTuple):
    """A device as its owner sees it; the ``last_seen_*`` values lag by some seconds."""

    device_id: str
    display_name: str | None
    created_ts: int
    last_seen_ts: int | None = None
    last_seen_ip: str | None = None
    last_seen_user_agent: str | None = None


class Seen(NamedTuple):
    """A device was used: when (ms), from which address, by which program."""

    user_id: str
    device_id: str
    ts: int
    address: str
    user_agent: str


_COLUMNS = ", ".join(DeviceRow._fields)


def ensure_device(cur: Cursor, user_id: str, device_id: str, display_name: str | None, now: int) -> bool:
    """Make the device unless it exists; True when it is new. An existing name stays."""
    cur.execute(
        "INSERT INTO devices (user_id, device_id, display_name, created_ts) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (user_id, device_id, display_name, now),
    )
    return cur.rowcount == 1


def devices_of(cur: Cursor, user_id: str) -> list[DeviceRow]:
    """All devices of an account by device ID."""
    cur.execute(f"SELECT {_COLUMNS} FROM devices WHERE user_id = %s ORDER BY device_id", (user_id,))
    return [DeviceRow(*row) for row in cur.fetchall()]


def device(cur: Cursor, user_id: str, device_id: str) -> DeviceRow | None:
    """One device."""
    cur.execute(
        f"SELECT {_COLUMNS} FROM devices WHERE user_id = %s AND device_id = %s", (user_id, device_id)
    )
    row = cur.fetchone()
    return DeviceRow(*row) if row else None


def rename_device(cur: Cursor, user_id: str, device_id: str, display_name: str) -> bool:
    """Set the display name; False when there is no such device."""
    cur.execute(
        "UPDATE devices SET display_name = %s WHERE user_id = %s AND device_id = %s",
        (display_name, user_id, device_id),
    )
    return cur.rowcount == 1


def delete_devices(cur: Cursor, user_id: str, device_ids: list[str]) -> list[str]:
    """Delete devices with all their tokens (by foreign key); returns those that existed."""
    cur.execute(
        "DELETE FROM devices WHERE user_id = %s AND device_id = ANY(%s) RETURNING device_id",
        (user_id, device_ids),
    )
    return [row[0] for row in cur.fetchall()]


def record_seen(cur: Cursor, seen: Iterable[Seen]) -> None:
    """Store in one statement when and from where devices were last used."""
    execute_values(
        cur,
        "UPDATE devices SET last_seen_ts = v.ts, last_seen_ip = v.ip, last_seen_user_agent = v.agent"
        " FROM (VALUES %s) AS v (user_id, device_id, ts, ip, agent)"
        " WHERE devices.user_id = v.user_id AND devices.device_id = v.device_id",
        list(seen),
        template="(%s, %s, %s::bigint, %s, %s)",
        page_size=1000,
    )
