"""From PostgreSQL's outbox to the log: what was committed there becomes visible to clients.

A row leaves the outbox only when its log entry is durable, and its number is kept in the log in the same batch as the
entry. So a crash between the two steps neither loses a change nor shows it twice: at the next start the row is found in
both places and is only removed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from storage.log.append import Batch, Log
from storage.log.catalog import FOLLOWERS
from storage.log.keys import LAST, part, u64
from storage.tables import outbox
from storage.tables.database import Database, DatabaseUnavailable

Bring = Callable[[Batch, dict[str, Any]], None]
"""Puts one row's change into the batch. Called on the reactor, must not fail on a payload that was once accepted."""

ROWS_AT_ONCE = 500
PAUSE_AFTER_FAILURE = 2.0

_logger = Logger()


class OutboxFollower:
    """Moves rows to the log, oldest first, whenever it is woken; ``bring`` says how, by kind of row."""

    def __init__(
        self,
        database: Database,
        log: Log,
        bring: Mapping[str, Bring],
        call_later: Callable[[float, Callable[[], None]], Any],
    ) -> None:
        self._database = database
        self._log = log
        self._bring = bring
        self._call_later = call_later
        self._running = False
        self._again = False
        self._waiting: list[Deferred[None]] = []
        self._next: list[Deferred[None]] = []
        self._removed: list[bytes] | None = None
        self._stopped = False

    def wake(self) -> None:
        """A transaction that wrote to the outbox was committed; also to be called once at start-up."""
        if self._running:
            self._again = True
        elif not self._stopped:
            self._running = True
            self._waiting, self._next = self._next, []
            Deferred.fromCoroutine(self._drain()).addErrback(self._failed)

    def drained(self) -> "Deferred[None]":
        """Fires when all that was committed before this call is in the log and visible to clients."""
        done: Deferred[None] = Deferred()
        if self._stopped:
            done.errback(DatabaseUnavailable("The server is shutting down"))
            return done
        self._next.append(done)
        self.wake()
        return done

    def stop(self) -> None:
        """Begin nothing new; what remains in the outbox is brought at the next start."""
        self._stopped = True

    async def _drain(self) -> None:
        # What was submitted before is durable after this, so that the snapshots below show all of it.
        await self._log.append(self._log.begin())
        skipped = 0
        while rows := await self._database.run_single(lambda cur: outbox.pending(cur, ROWS_AT_ONCE)):
            known = [row for row in rows if row.kind in self._bring]
            if self._removed is None:
                self._removed = self._left_behind({_marker(row.id) for row in known})
            await self._append(known)
            skipped = len(rows) - len(known)
            if known:
                ids = [row.id for row in known]
                await self._database.run_single(lambda cur, ids=ids: outbox.remove(cur, ids))  # type: ignore[misc]
                self._removed = [*(self._removed or ()), *map(_marker, ids)]
            if len(rows) < ROWS_AT_ONCE or not known:
                break
        if skipped:
            _logger.error("{count} rows of the outbox are of a kind that this version does not know", count=skipped)
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)
        self._finished()

    async def _append(self, rows: list[outbox.OutboxRow]) -> None:
        batch = self._log.begin()
        new = 0
        for row in rows:
            if self._log.get(FOLLOWERS, _marker(row.id)) is None:
                self._bring[row.kind](batch, row.payload)
                batch.put(FOLLOWERS, _marker(row.id), u64(row.id))
                new += 1
        if new:
            # Rows that are gone for good need no marker any more.
            removed, self._removed = self._removed or [], []
            for marker in removed:
                batch.delete(FOLLOWERS, marker)
            await self._log.append(batch)

    def _left_behind(self, pending: set[bytes]) -> list[bytes]:
        """Markers of rows that were removed just before the server stopped."""
        with self._log.snapshot() as snapshot:
            return [key for key, _ in snapshot.range(FOLLOWERS, _marker(0), _marker(-1)) if key not in pending]

    def _finished(self) -> None:
        self._running = False
        if self._again or self._next:
            self._again = False
            self.wake()

    def _failed(self, failure: Any) -> None:
        """The rows are still in the outbox: try again later. Those who wait learn that it did not work now."""
        _logger.warn("bringing the outbox to the log failed: {reason}", reason=failure.getErrorMessage())
        waiting, self._waiting = self._waiting, []
        self._running = False
        if not self._stopped:
            self._call_later(PAUSE_AFTER_FAILURE, self.wake)
        for done in waiting:
            done.errback(failure)


def _marker(row_id: int) -> bytes:
    """Key of "this row is in the log"; -1 is behind the last one."""
    return part("outbox") + (u64(row_id) if row_id >= 0 else LAST)
