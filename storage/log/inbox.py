"""To-device messages: one inbox for each device, emptied as the device acknowledges.

A message is client-format JSON (`type`, `sender`, `content`), stored under the position at which it was sent.
"""

from collections.abc import Iterator

from twisted.internet.defer import Deferred

from storage.log.append import Batch, Kind, Log
from storage.log.catalog import INBOX
from storage.log.keys import LAST, from_u64, part, u64
from storage.log.view import Snapshot

_PAST_INBOXES = b"\xff" * 40
"""Behind every user id."""


def put_message(batch: Batch, user_id: str, device_id: str, message: bytes) -> int:
    """Put a message into a device's inbox; returns its position."""
    position = batch.entry(Kind.TO_DEVICE, user_id=user_id, device_id=device_id)
    batch.put(INBOX, _prefix(user_id, device_id) + u64(position), message)
    return position


def messages(
    snapshot: Snapshot, user_id: str, device_id: str, after: int, upto: int, limit: int
) -> Iterator[tuple[int, bytes]]:
    """``(position, message)`` of what came after ``after`` up to and including ``upto``, oldest first."""
    prefix = _prefix(user_id, device_id)
    for key, value in snapshot.range(INBOX, prefix + u64(after + 1), prefix + u64(upto + 1), limit=limit):
        yield from_u64(key, len(prefix)), value


def delete_messages(batch: Batch, snapshot: Snapshot, user_id: str, device_id: str, upto: int, limit: int) -> int:
    """Delete what a device has acknowledged, up to and including ``upto``; returns how many, at most ``limit``."""
    prefix = _prefix(user_id, device_id)
    return _delete(batch, snapshot, prefix + u64(0), prefix + u64(upto + 1), limit)


def clear_inbox(batch: Batch, snapshot: Snapshot, user_id: str, device_id: str) -> int:
    """Delete everything that lies in a device's inbox; returns how many messages that were."""
    prefix = _prefix(user_id, device_id)
    return _delete(batch, snapshot, prefix + u64(0), prefix + LAST, None)


class InboxTrim:
    """Bounds all inboxes, ``step`` by step from the last row to the first: of each device, the newest messages stay."""

    STEP = 1000
    """Rows that one step looks at."""

    def __init__(self, log: Log, max_bytes: int) -> None:
        """``max_bytes``: the size of a device's messages together."""
        self.deleted = 0
        """Messages deleted so far."""
        self._log = log
        self._max_bytes = max_bytes
        self._stop = _PAST_INBOXES
        self._prefix = b""
        self._size = 0

    def step(self) -> "Deferred[int] | None":
        """Go on. A Deferred to wait for before the next step, or None after the last one. Raises LogUnavailable."""
        batch = self._log.begin()
        count = 0
        with self._log.snapshot() as snapshot:
            for key, message in snapshot.range(INBOX, b"\0", self._stop, reverse=True, limit=self.STEP):
                count += 1
                self._stop = key
                if key[:-8] != self._prefix:
                    self._prefix, self._size = key[:-8], 0
                self._size += len(message)
                if self._size > self._max_bytes:
                    batch.delete(INBOX, key)
                    self.deleted += 1
        return self._log.append(batch) if count else None


def _delete(batch: Batch, snapshot: Snapshot, start: bytes, stop: bytes, limit: int | None) -> int:
    count = 0
    for key, _ in snapshot.range(INBOX, start, stop, limit=limit):
        batch.delete(INBOX, key)
        count += 1
    return count


def _prefix(user_id: str, device_id: str) -> bytes:
    return part(user_id) + part(device_id)
