"""PostgreSQL for the rest of the server: work runs in pool threads, each with its own connection.

Three ways to ask, cheapest first:

* ``fetch``, ``execute``: one statement, which is its own transaction: one round trip;
* ``run_single(work)``: a table function that executes exactly one statement;
* ``run(work)``: any number of statements in one transaction.

What may be repeated is repeated, what may not is not. A transaction that failed before its COMMIT was sent has changed
nothing, so ``run`` does it again after a serialization failure, a deadlock or a lost connection: ``work`` must have no
effect besides its SQL. When the connection breaks while a COMMIT or a single statement is under way, nobody knows
the outcome: the caller gets DatabaseUnavailable (503).

Every call ends within bounds. One that finds no free connection for ``WAIT_SECONDS``, and one that runs for
``RUN_SECONDS``, get DatabaseUnavailable; the connection of the latter is cut, which frees its thread even when the
server at the other end is stopped or cannot be reached any more.
"""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg2
from psycopg2 import errors as pg_errors
from psycopg2.extensions import cursor as Cursor
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from storage.tables.database_connection import Connection
from storage.tables.database_cursor import SingleCursor, TransactionCursor
from storage.tables.errors import DatabaseRefused, DatabaseUnavailable, TableError, UnstorableText

__all__ = ["Cursor", "Database", "DatabaseRefused", "DatabaseUnavailable", "TableError", "UnstorableText"]

T = TypeVar("T")
Row = tuple[Any, ...]
Arguments = Sequence[Any] | Mapping[str, Any] | None

MAX_WAITING = 5_000
WAIT_SECONDS = 10.0
RUN_SECONDS = 40.0
"""More than ``statement_timeout_ms``: a statement that PostgreSQL itself can end leaves the connection whole."""
CLOSE_SECONDS = 2.0
"""For how long calls may go on once the server shuts down."""
WATCH_SECONDS = 0.5
ATTEMPTS = 5
TOO_BUSY = "The database is too busy; try again"
_GONE = (
    pg_errors.AdminShutdown,
    pg_errors.CrashShutdown,
    pg_errors.CannotConnectNow,
    pg_errors.ReadOnlySqlTransaction,
)
_log = Logger()


class Database:
    """A pool of ``connections`` threads. Made on the reactor thread; all its methods are called there."""

    def __init__(
        self,
        reactor: Any,
        parameters: Mapping[str, object],
        *,
        connections: int = 4,
        patience: float = 2.0,
        statement_timeout_ms: int = 30_000,
        wait_seconds: float = WAIT_SECONDS,
        run_seconds: float = RUN_SECONDS,
        after_close: Callable[[], None] | None = None,
    ) -> None:
        """``reactor`` is an IReactorTime and IReactorFromThreads, ``parameters`` are libpq's.

        ``patience`` is how many seconds a call waits for a server that is away. ``after_close`` runs (in a thread)
        once ``close`` has closed the last connection.
        """
        self.parameters = dict(parameters)
        self.on_outbox: Callable[[], None] | None = (
            None  # called on the reactor after a commit that wrote to the outbox
        )
        self._reactor = reactor
        self._size = connections
        self._patience = patience
        self._statement_timeout_ms = statement_timeout_ms
        self._wait_seconds = wait_seconds
        self._run_seconds = run_seconds
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._pending: dict[_Job, None] = {}
        """Calls that have no answer yet, oldest first."""
        self._watching = False
        self._after_close = after_close
        self._closed = False
        self._away_until = 0.0

    def run(self, work: Callable[[Cursor], T], *, retry_serialization: bool = True) -> "Deferred[T]":
        """Do ``work(cursor)`` in one transaction (READ COMMITTED) and commit; fires with what ``work`` returned.

        ``work`` runs in a pool thread and may run again (see above). What it raises rolls back and comes out unchanged.
        """
        attempts = ATTEMPTS if retry_serialization else 1
        return self._submit(lambda worker: worker.transaction(work, attempts))

    def run_single(self, work: Callable[[Cursor], T]) -> "Deferred[T]":
        """Do ``work(cursor)``, which executes exactly one statement, without the round trip of a COMMIT."""
        return self._submit(lambda worker: worker.single(work))

    def fetch(self, sql: str, args: Arguments = None) -> "Deferred[list[Row]]":
        """All rows that one statement returns."""
        return self.run_single(lambda cur: _executed(cur, sql, args).fetchall())

    def execute(self, sql: str, args: Arguments = None) -> "Deferred[int]":
        """Execute one statement; the number of rows that it touched."""
        return self.run_single(lambda cur: _executed(cur, sql, args).rowcount)

    def close(self) -> "Deferred[None]":
        """Finish what was handed in, then end threads and connections. Later calls get DatabaseUnavailable."""
        done: Deferred[None] = Deferred()
        self._closed = True
        self._wait_seconds = self._run_seconds = CLOSE_SECONDS
        after_close, self._after_close = self._after_close, None
        threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)

        def wait() -> None:
            for thread in threads:
                thread.join()
            if after_close is not None:
                after_close()
            self._reactor.callFromThread(done.callback, None)

        threading.Thread(target=wait, name="database close").start()
        return done

    def stats(self) -> dict[str, int]:
        """Gauges for metrics: open threads, calls waiting or running."""
        return {"connections": len(self._threads), "calls": len(self._pending)}

    def _submit(self, work: Callable[["_Worker"], T]) -> "Deferred[T]":
        deferred: Deferred[T] = Deferred(_forget)
        if self._closed:
            deferred.errback(DatabaseUnavailable("The server is shutting down"))
            return deferred
        if len(self._pending) >= MAX_WAITING:
            deferred.errback(DatabaseUnavailable(TOO_BUSY))
            return deferred
        if len(self._pending) >= len(self._threads) < self._size:
            self._start_thread()
        job = _Job(work, deferred, time.monotonic())
        self._pending[job] = None
        self._jobs.put(job)
        if not self._watching:
            self._watching = True
            self._reactor.callLater(WATCH_SECONDS, self._watch)
        return deferred

    def _start_thread(self) -> None:
        worker = _Worker(self)
        thread = threading.Thread(target=worker.loop, name=f"database {len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _deliver(self, job: "_Job", result: Any, outbox: bool) -> None:
        if outbox and self.on_outbox is not None:
            self.on_outbox()
        if job in self._pending:  # else it took too long, and the caller knows
            del self._pending[job]
            job.deferred.callback(result)  # a Failure becomes an errback

    def _watch(self) -> None:
        """End calls that take too long."""
        now = time.monotonic()
        for job in [job for job in self._pending if job.overdue(now, self._wait_seconds, self._run_seconds)]:
            error = TOO_BUSY
            if not job.claim():
                error = "The database does not answer; whether it happened is not known"
                _log.error("PostgreSQL has not answered for {seconds:.0f} s", seconds=now - job.submitted)
                job.cut()
            del self._pending[job]
            job.deferred.errback(DatabaseUnavailable(error))
        self._watching = bool(self._pending)
        if self._watching:
            self._reactor.callLater(WATCH_SECONDS, self._watch)


def _executed(cur: Cursor, sql: str, args: Arguments) -> Cursor:
    cur.execute(sql, args)
    return cur


def _forget(_deferred: "Deferred[Any]") -> None:
    """Cancelling leaves the SQL to finish by itself: Twisted drops the late answer."""


class _Job:
    """One call: waiting for a thread until one of worker and watch claims it."""

    __slots__ = ("_unclaimed", "began", "deferred", "submitted", "work", "worker")

    def __init__(self, work: Callable[["_Worker"], Any], deferred: "Deferred[Any]", now: float) -> None:
        self.work = work
        self.deferred = deferred
        self.submitted = now
        self.began: float | None = None
        self.worker: _Worker | None = None
        self._unclaimed = [None]

    def claim(self) -> bool:
        """True for the first who asks, in whichever thread."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def overdue(self, now: float, wait_seconds: float, run_seconds: float) -> bool:
        """Whether it has waited, or run, for too long."""
        if self.began is None:
            return now - self.submitted > wait_seconds
        return now - self.began > run_seconds

    def cut(self) -> None:
        """Take the connection away from the thread that runs this job."""
        worker = self.worker
        if worker is not None:
            worker.cut()


class _Worker:
    """What one pool thread does; everything here but ``cut`` runs in that thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self.outbox_written = False

    def loop(self) -> None:
        """Take jobs until told to stop."""
        jobs = self._database._jobs
        while (job := jobs.get()) is not None:
            if job.claim():
                self._perform(job)
            del job  # or an idle thread would keep the last answer alive
        if self._connection is not None:
            self._connection.close()

    def _perform(self, job: _Job) -> None:
        job.worker, job.began = self, time.monotonic()
        result: Any
        try:
            result = job.work(self)
        except psycopg2.OperationalError as problem:
            # A statement that took too long, a full disk, too many who want the same rows: the trouble is the
            # server's, and asking again later is right.
            _log.error("PostgreSQL could not do its work: {reason}", reason=str(problem).strip())
            result = Failure(DatabaseUnavailable())
        except BaseException as problem:
            result = Failure(problem)
        outbox, self.outbox_written = self.outbox_written, False
        job.worker = None
        self._database._reactor.callFromThread(self._database._deliver, job, result, outbox)

    def cut(self) -> None:
        """From the reactor thread: end the wait for an answer of the server."""
        connection = self._connection
        if connection is not None:
            connection.cut()

    def transaction(self, work: Callable[[Cursor], T], attempts: int) -> T:
        """``work`` within BEGIN … COMMIT, repeated as long as that cannot do it twice."""
        for attempt in range(1, attempts + 1):
            connection = self._connected()
            cursor = connection.raw.cursor(cursor_factory=TransactionCursor)
            try:
                result = work(cursor)
            except (pg_errors.SerializationFailure, pg_errors.DeadlockDetected):
                self._roll_back(cursor)
                if attempt == attempts:
                    raise
                time.sleep(0.01 * attempt)
                continue
            except psycopg2.Error as problem:
                if not _lost(connection, problem):
                    self._roll_back(cursor)
                    raise
                self._drop()
                if connection.was_cut or attempt >= min(attempts, 2):
                    raise DatabaseUnavailable() from problem
                continue
            except BaseException:
                self._roll_back(cursor)
                raise
            try:
                self._commit(connection, cursor)
            except (pg_errors.SerializationFailure, pg_errors.DeadlockDetected):
                if attempt == attempts:
                    raise
                continue
            return result
        raise DatabaseUnavailable()

    def single(self, work: Callable[[Cursor], T]) -> T:
        """``work`` with its one statement in autocommit."""
        connection = self._connected()
        cursor = connection.raw.cursor(cursor_factory=SingleCursor)
        try:
            return work(cursor)
        except psycopg2.Error as problem:
            if not _lost(connection, problem):
                raise
            self._drop()
            raise DatabaseUnavailable() from problem
        finally:
            cursor.close()

    def _commit(self, connection: Connection, cursor: TransactionCursor) -> None:
        if not cursor.begun:
            return
        try:
            cursor.execute("COMMIT")
        except psycopg2.Error as problem:
            if not _lost(connection, problem):
                raise  # a deferred constraint or a serialization failure: rolled back
            self._drop()
            raise DatabaseUnavailable(
                "The database went away during the commit; whether it happened is not known"
            ) from problem
        if cursor.statusmessage != "COMMIT":  # `work` swallowed the error of a statement
            raise RuntimeError("The transaction was rolled back because a statement in it failed")
        self.outbox_written = cursor.outbox_written
        cursor.close()

    def _roll_back(self, cursor: TransactionCursor) -> None:
        if not cursor.begun:
            return
        try:
            cursor.execute("ROLLBACK")
            cursor.close()
        except psycopg2.Error:
            self._drop()

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is not None:
            if connection.alive():
                return connection
            self._drop()
        self._connection = connection = self._connect()
        return connection

    def _connect(self) -> Connection:
        database = self._database
        start = time.monotonic()
        if start < database._away_until:
            raise DatabaseUnavailable()
        while True:
            try:
                return Connection(database.parameters, database._statement_timeout_ms)
            except (psycopg2.Error, DatabaseRefused) as problem:
                now = time.monotonic()
                if (
                    database._closed
                    or isinstance(problem, DatabaseRefused)
                    or now - start > database._patience
                ):
                    _log.error("cannot connect to PostgreSQL: {reason}", reason=str(problem).strip())
                    database._away_until = now + 0.5
                    raise DatabaseUnavailable() from problem
                time.sleep(0.1)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _lost(connection: Connection, problem: psycopg2.Error) -> bool:
    """Whether ``problem`` means that the connection is of no use any more, rather than that SQL failed.

    A server that has become read-only is no longer the one to talk to: the next connection finds another, or says so.
    """
    return bool(connection.raw.closed) or isinstance(problem, _GONE)
