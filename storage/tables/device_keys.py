"""The `device_keys` table: the identity keys that a device published, as JSON text."""

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor


class DeviceKeysRow(NamedTuple):
    """The uploaded keys of one device and the name that its owner gave it."""

    user_id: str
    device_id: str
    keys_json: str
    display_name: str | None


def lock_device(cur: Cursor, user_id: str, device_id: str) -> bool:
    """Whether the device exists; if so, nobody deletes it before this transaction ends."""
    cur.execute(
        "SELECT 1 FROM devices WHERE user_id = %s AND device_id = %s FOR KEY SHARE", (user_id, device_id)
    )
    return cur.fetchone() is not None


def store_device_keys(cur: Cursor, user_id: str, device_id: str, keys_json: str) -> bool:
    """Publish the keys of a device; False when these very keys were there already."""
    cur.execute(
        "INSERT INTO device_keys AS d (user_id, device_id, keys_json) VALUES (%s, %s, %s)"
        " ON CONFLICT (user_id, device_id) DO UPDATE SET keys_json = EXCLUDED.keys_json"
        " WHERE d.keys_json <> EXCLUDED.keys_json",
        (user_id, device_id, keys_json),
    )
    return cur.rowcount == 1


def device_keys_of(cur: Cursor, user_ids: list[str]) -> list[DeviceKeysRow]:
    """The published keys of all devices of these users."""
    cur.execute(
        "SELECT k.user_id, k.device_id, k.keys_json, d.display_name"
        " FROM device_keys k JOIN devices d USING (user_id, device_id) WHERE k.user_id = ANY(%s)"
        " ORDER BY k.user_id, k.device_id",
        (user_ids,),
    )
    return [DeviceKeysRow(*row) for row in cur.fetchall()]


def existing_devices(cur: Cursor, user_ids: list[str]) -> list[tuple[str, str]]:
    """``(user ID, device ID)`` of every device of the active accounts among these."""
    cur.execute(
        "SELECT d.user_id, d.device_id FROM devices d JOIN users u USING (user_id)"
        " WHERE d.user_id = ANY(%s) AND NOT u.deactivated ORDER BY d.user_id, d.device_id",
        (user_ids,),
    )
    return cur.fetchall()
