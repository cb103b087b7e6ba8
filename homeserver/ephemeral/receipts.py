"""Receipts and read markers: how far a user has read, never moving back.

Specification: Client-Server API, modules "Receipts" and "Fully read markers". Whether the user may is decided by
the caller.
"""

from collections.abc import Callable, Mapping

import orjson

from federation.rules.errors import MatrixError
from storage.log import events as event_log
from storage.log.account_data import datum, put_datum
from storage.log.append import Log
from storage.log.receipts import Receipt, put_receipt, receipt_of

READ = "m.read"
PRIVATE = "m.read.private"
FULLY_READ = "m.fully_read"
TYPES = (READ, PRIVATE, FULLY_READ)
MAX_THREAD_BYTES = 255


class Receipts:
    """Writes receipts. Decides on the newest submitted data and answers when it is durable."""

    def __init__(self, log: Log, now_ms: Callable[[], int]) -> None:
        self._log = log
        self._now_ms = now_ms

    async def read_up_to(self, user_id: str, room_id: str, markers: Mapping[str, str], thread: str = "") -> None:
        """Set markers (type → event id) in one commit; one that would move back is left where it is.

        ``thread`` is ``""`` for unthreaded receipts, ``main`` or a thread's root. Raises MatrixError 400 for a thread
        that does not fit and 404 for an event that is not in the room.
        """
        batch = self._log.begin()
        for type_, event_id in markers.items():
            record = event_log.event_by_id(self._log, event_id)
            if record is None or record.seq is None or record.room_id != room_id:
                raise MatrixError(404, "M_NOT_FOUND", "There is no such event in this room")
            if type_ == FULLY_READ:
                self._mark_fully_read(batch, user_id, room_id, record)
            else:
                if thread:
                    self._check_thread(record, thread)
                self._put(batch, user_id, room_id, type_, thread, record)
        await self._log.append(batch)

    def _put(
        self,
        batch: event_log.Batch,
        user_id: str,
        room_id: str,
        type_: str,
        thread: str,
        record: event_log.EventRecord,
    ) -> None:
        seq = record.seq or 0
        former = receipt_of(batch, room_id, user_id, type_, thread)
        if former is not None and former.seq >= seq:
            return
        receipt = Receipt(room_id, user_id, type_, thread, record.event_id, seq, self._now_ms())
        put_receipt(batch, receipt, private=type_ == PRIVATE)

    def _mark_fully_read(
        self, batch: event_log.Batch, user_id: str, room_id: str, record: event_log.EventRecord
    ) -> None:
        former = datum(batch, user_id, room_id, FULLY_READ)
        if former is not None:
            marked = event_log.event_by_id(self._log, str(orjson.loads(former.content).get("event_id")))
            if marked is not None and marked.seq is not None and marked.seq >= (record.seq or 0):
                return
        put_datum(batch, user_id, room_id, FULLY_READ, orjson.dumps({"event_id": record.event_id}))

    def _check_thread(self, record: event_log.EventRecord, thread: str) -> None:
        """The event has to be in the thread: its root, or related to it; ``main`` has all that is in no thread."""
        relation = orjson.loads(record.content_json).get("m.relates_to")
        root = None
        if isinstance(relation, dict) and relation.get("rel_type") == "m.thread":
            root = relation.get("event_id")
        in_thread = root is None if thread == "main" else thread in (root, record.event_id) or root is None
        if not in_thread:
            raise MatrixError(400, "M_INVALID_PARAM", "The event is not in this thread")
