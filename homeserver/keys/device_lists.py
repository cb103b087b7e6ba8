"""A change of somebody's keys or devices on its way to those who have to hear of it.

It is written to the outbox in the SQL transaction that makes the change; the follower brings it to the log.
"""

from typing import Any

from psycopg2.extensions import cursor as Cursor

from storage.tables import outbox

KIND = "device_list"


def record_change(cur: Cursor, user_id: str, *, device_id: str = "", only_for: str | None = None) -> None:
    """Tell everybody who shares a room with ``user_id`` (or ``only_for`` alone) that the keys are to be fetched again.

    To be called inside the transaction of the change: other device keys (of the one named by ``device_id``), other
    cross-signing keys, new signatures.
    New, renamed and deleted devices have rows of their own kinds, written by those who change them.
    """
    payload: dict[str, Any] = {"user_id": user_id}
    if device_id:
        payload["device_id"] = device_id
    if only_for is not None:
        payload["only_for"] = only_for
    outbox.add(cur, KIND, payload)
