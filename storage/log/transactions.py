"""Answers to requests with a transaction id, so that a repeated request gets its first answer, also after a restart.

Specification: Client-Server API, "Transaction identifiers". The scope of an id is the device and the path of the
request, which the caller names.
"""

from storage.log.append import Batch
from storage.log.catalog import TRANSACTIONS
from storage.log.keys import after_prefix, from_u64, part, scope_hash, u64
from storage.log.view import Snapshot, View


def get_transaction(view: View, user_id: str, device_id: str, scope: str, txn_id: str) -> bytes | None:
    """What was answered to this transaction (an event id, a JSON body…), ``None`` when it is new."""
    value = view.get(TRANSACTIONS, _key(user_id, device_id, scope, txn_id))
    return None if value is None else value[8:]


def put_transaction(
    batch: Batch, user_id: str, device_id: str, scope: str, txn_id: str, answer: bytes, position: int
) -> None:
    """Remember an answer with the position of what it did; the position is the row's age for pruning."""
    batch.put(TRANSACTIONS, _key(user_id, device_id, scope, txn_id), u64(position) + answer)


def forget_device(batch: Batch, snapshot: Snapshot, user_id: str, device_id: str) -> int:
    """Delete a device's transactions (it was logged out); returns how many there were."""
    prefix = part(user_id) + part(device_id)
    keys = [key for key, _ in snapshot.range(TRANSACTIONS, prefix, after_prefix(prefix))]
    for key in keys:
        batch.delete(TRANSACTIONS, key)
    return len(keys)


def prune(batch: Batch, snapshot: Snapshot, before: int, start: bytes = b"\0", limit: int = 1000) -> bytes | None:
    """Delete transactions older than position ``before`` among the next ``limit`` rows from key ``start``.

    Returns the key to go on from in a later turn, ``None`` at the end of the table.
    """
    count = 0
    for key, value in snapshot.range(TRANSACTIONS, start, b"\xff" * 34, limit=limit):
        count += 1
        start = key
        if from_u64(value) < before:
            batch.delete(TRANSACTIONS, key)
    return None if count < limit else start + b"\0"


def _key(user_id: str, device_id: str, scope: str, txn_id: str) -> bytes:
    # The separator keeps ("a", "b/c") and ("a/b", "c") apart.
    return part(user_id) + part(device_id) + scope_hash(f"{scope}\0{txn_id}")
