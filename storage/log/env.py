"""The LMDB environment: opening it safely, the writer thread, snapshots, growth of the map.

All write transactions run on one thread of ours, one at a time, synced. Read transactions belong to the
reactor thread and end with its turn; the one exception is the *pin*, a read transaction that the store
itself holds while a commit is under way, so that every read shows exactly the released position and never
a half-way look at data that nobody has been told of.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

import lmdb
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from storage.log.append import EPOCH_KEY, FIRST_EPOCH_KEY, FORMAT_KEY, INODE_KEY, LEASE, LEASE_KEY, MISMATCH_KEY, Log
from storage.log.catalog import FORMAT, LOG, META, TABLES, Table
from storage.log.directory import DirectoryLock, check_directory
from storage.log.errors import LogFull, LogRefused
from storage.log.keys import from_u64, u64
from storage.log.view import Rows

T = TypeVar("T")

MAX_READERS: Final = 1024
FIRST_MAP_SIZE: Final = 1 << 30
LARGEST_MAP_SIZE: Final = 1 << 44
SLOW_SNAPSHOT: Final = 1.0
"""Seconds after which an open snapshot is reported."""

Fault = Callable[[str], None]
"""Called with the name of each storage step before it happens; raising makes the step fail (for tests)."""

_report = Logger(namespace="storage.log")


class LmdbSnapshot:
    """A read transaction as a context manager. See :class:`storage.log.view.Snapshot`."""

    __slots__ = ("_dbs", "_owner", "_started", "_txn")

    def __init__(self, txn: Any, dbs: list[Any], owner: "LmdbStore | None") -> None:
        self._txn = txn
        self._dbs = dbs
        self._owner = owner
        self._started = time.monotonic()

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or ``None``."""
        value: bytes | None = self._txn.get(key, db=self._dbs[table.number])
        return value

    def range(
        self, table: Table, start: bytes, stop: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with ``start <= key < stop`` in key order (``reverse``: descending), at most ``limit``."""
        with self._txn.cursor(self._dbs[table.number]) as cursor:
            if reverse:
                # The row before the first one at or behind ``stop``; the last row when there is none such.
                if not (cursor.prev() if cursor.set_range(stop) else cursor.last()):
                    return
                for row in cursor.iterprev():
                    if row[0] < start or limit == 0:
                        return
                    yield row
                    if limit is not None:
                        limit -= 1
                return
            if not cursor.set_range(start):
                return
            for row in cursor:
                if row[0] >= stop or limit == 0:
                    return
                yield row
                if limit is not None:
                    limit -= 1

    def close(self) -> None:
        """End the view. Twice is harmless. Reports a view that was held too long."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._closed_snapshot(self)
            self._txn.abort()

    def __enter__(self) -> "LmdbSnapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LmdbStore:
    """One open LMDB environment with its writer thread. See :class:`storage.log.view.Store`."""

    def __init__(
        self,
        env: Any,
        lock: DirectoryLock,
        reactor: Any,
        *,
        largest_map_size: int = LARGEST_MAP_SIZE,
        fault: Fault | None = None,
    ) -> None:
        self._env = env
        self._lock = lock
        self._reactor = reactor
        self._largest = largest_map_size
        self._fault = fault
        self._dbs = [env.open_db(table.name.encode()) for table in TABLES]
        self._pin: Any = None
        self._done: Callable[[BaseException | None], None] | None = None
        self._open_snapshots: set[LmdbSnapshot] = set()
        self._thread_reads = 0
        self.slow_snapshots = 0
        """Snapshots held longer than ``SLOW_SNAPSHOT`` seconds since the start (for health and metrics)."""
        self._jobs: SimpleQueue[Rows | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="log-writer", daemon=True)
        self._writer.start()

    # -- reading -----------------------------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The durable value as of the last release."""
        value: bytes | None
        if self._pin is not None:
            value = self._pin.get(key, db=self._dbs[table.number])
            return value
        with self._env.begin() as txn:
            value = txn.get(key, db=self._dbs[table.number])
            return value

    def snapshot(self) -> LmdbSnapshot:
        """A view of what is durable and released."""
        if self._pin is not None:
            return LmdbSnapshot(self._pin, self._dbs, None)
        snapshot = LmdbSnapshot(self._env.begin(), self._dbs, self)
        self._open_snapshots.add(snapshot)
        return snapshot

    def read_in_thread(self, pool: Any, work: Callable[[LmdbSnapshot], T]) -> "Deferred[T]":
        """Run ``work`` with a snapshot of its own in ``pool``; for long reads that must not hold the reactor.

        What it sees may be ahead of the released position. The map does not grow while it runs: keep it short
        or cut it into steps.
        """

        def run() -> T:
            with self._env.begin() as txn:
                return work(LmdbSnapshot(txn, self._dbs, None))

        def ended(result: Any) -> Any:
            self._thread_reads -= 1
            return result

        self._thread_reads += 1
        return deferToThreadPool(self._reactor, pool, run).addBoth(ended)

    def _closed_snapshot(self, snapshot: LmdbSnapshot) -> None:
        self._open_snapshots.discard(snapshot)
        if time.monotonic() - snapshot._started > SLOW_SNAPSHOT:
            self.slow_snapshots += 1
            _report.warn(
                "a snapshot was open for {seconds:.1f} s; the file grows meanwhile",
                seconds=time.monotonic() - snapshot._started,
            )

    def stats(self) -> dict[str, int]:
        """Bytes: ``map_size``, ``used``. Counts: ``readers``, ``open_snapshots``, ``slow_snapshots``."""
        info = self._env.info()
        return {
            "map_size": info["map_size"],
            "used": (info["last_pgno"] + 1) * self._env.stat()["psize"],
            "readers": info["num_readers"],
            "open_snapshots": len(self._open_snapshots),
            "slow_snapshots": self.slow_snapshots,
        }

    # -- writing -----------------------------------------------------------------------------------------

    def commit(self, rows: Rows, done: Callable[[BaseException | None], None]) -> None:
        """Hand ``rows`` to the writer thread; ``done`` is called on the reactor."""
        for snapshot in self._open_snapshots:
            # Snapshots are closed in their own turn, so one that is open here was forgotten.
            if time.monotonic() - snapshot._started > SLOW_SNAPSHOT:
                _report.error("a snapshot was never closed; the file grows meanwhile")
        self._done = done
        self._pin = self._env.begin()
        self._jobs.put(rows)

    def _write_loop(self) -> None:
        while (rows := self._jobs.get()) is not None:
            error: BaseException | None = None
            try:
                self._write(rows)
            except BaseException as raised:
                error = raised
            self._reactor.callFromThread(self._written, rows, error)

    def _write(self, rows: Rows) -> None:
        """One synced transaction. Leaving the ``with`` commits; an exception inside it aborts."""
        fault = self._fault
        if fault is not None:
            fault("begin")
        with self._env.begin(write=True) as txn:
            for number, puts in rows.items():
                db = self._dbs[number]
                if fault is not None:
                    fault("put")
                if None in puts.values():
                    for key, value in puts.items():
                        if value is None:
                            txn.delete(key, db=db)
                        else:
                            txn.put(key, value, db=db)
                elif len(puts) == 1:
                    ((key, value),) = puts.items()
                    txn.put(key, value, db=db)
                else:
                    # Neighbours touch the same page: sorted, each page is visited once.
                    with txn.cursor(db) as cursor:
                        cursor.putmulti(sorted(puts.items()))
            if fault is not None:
                fault("commit")
        if fault is not None:
            fault("committed")

    def _written(self, rows: Rows, error: BaseException | None) -> None:
        if self._pin is not None:
            self._pin.abort()
            self._pin = None
        if isinstance(error, lmdb.MapFullError | lmdb.MapResizedError):
            self._grow_and_retry(rows)
            return
        done, self._done = self._done, None
        assert done is not None
        done(error)

    def _grow_and_retry(self, rows: Rows) -> None:
        """The map was full: enlarge it while no transaction is open, then write the same rows again."""
        if self._thread_reads or self._open_snapshots:
            # set_mapsize with an open read transaction would unmap the memory below it.
            self._reactor.callLater(0.005, self._grow_and_retry, rows)
            return
        done, self._done = self._done, None
        assert done is not None
        size = self._env.info()["map_size"]
        larger = min(size * 2, self._largest)
        if larger <= size:
            done(LogFull(f"the log's map is full at its largest allowed size, {size} bytes"))
            return
        try:
            if self._fault is not None:
                self._fault("grow")
            self._env.set_mapsize(larger)
        except (lmdb.Error, OSError, OverflowError) as error:
            full = LogFull(f"the log's map could not grow from {size} to {larger} bytes")
            full.__cause__ = error
            done(full)
            return
        _report.info("the log's map grew from {old} to {new} bytes", old=size, new=larger)
        self.commit(rows, done)

    def close(self) -> None:
        """Stop the writer thread and close the environment. No commit may be under way."""
        self._jobs.put(None)
        self._writer.join()
        for snapshot in list(self._open_snapshots):
            snapshot.close()
        if self._pin is not None:
            self._pin.abort()
            self._pin = None
        self._env.close()
        self._lock.release()


def open_environment(path: Path, *, map_size: int = FIRST_MAP_SIZE, readonly: bool = False) -> Any:
    """The LMDB environment in directory ``path``, always synced. For :func:`open_log` and the checker.

    An environment that grew in earlier runs keeps its size.
    """
    # Never MDB_NOSYNC, MDB_NOMETASYNC, MDB_WRITEMAP or MDB_NOLOCK: acknowledged means durable.
    env = lmdb.open(
        str(path),
        map_size=0 if (path / "data.mdb").exists() else map_size,
        max_dbs=64,
        max_readers=MAX_READERS,
        subdir=True,
        create=not readonly,
        readonly=readonly,
        sync=True,
        metasync=True,
        writemap=False,
        lock=True,
        readahead=False,
        max_spare_txns=4,
    )
    if not readonly and env.info()["map_size"] < map_size:
        env.set_mapsize(map_size)
    return env


@contextmanager
def reading(path: Path) -> Iterator[LmdbSnapshot]:
    """What is durable in the log in directory ``path``, for another process than the server, which may go on writing.

    Raises :class:`LogRefused` when there is no log, or one of another format or an older version.
    """
    if not (path / "data.mdb").is_file():
        raise LogRefused(f"there is no log in {path}")
    check_directory(path)
    env = open_environment(path, readonly=True)
    try:
        dbs = [env.open_db(table.name.encode(), create=False) for table in TABLES]
        with env.begin() as txn:
            snapshot = LmdbSnapshot(txn, dbs, None)
            stored = snapshot.get(META, FORMAT_KEY)
            if stored is None or from_u64(stored) != FORMAT:
                raise LogRefused(f"the log in {path} has another format than this version of folkmoot reads")
            yield snapshot
    except lmdb.NotFoundError:
        raise LogRefused(f"the log in {path} is of an older version of folkmoot: start the server once") from None
    finally:
        env.close()


def _random_epoch() -> str:
    return secrets.token_hex(4)


def open_log(
    path: Path | str,
    reactor: Any,
    *,
    map_size: int = FIRST_MAP_SIZE,
    largest_map_size: int = LARGEST_MAP_SIZE,
    new_epoch: Callable[[], str] = _random_epoch,
    fault: Fault | None = None,
) -> Log:
    """Open (or create) the log in directory ``path``.

    ``map_size`` is the first size of the memory map in bytes; it doubles as needed up to
    ``largest_map_size``. Raises :class:`LogRefused` for a directory of another owner, on a network file
    system, in use by another process, or written in another format.
    """
    reactor = _checked_reactor(reactor)
    path = Path(path)
    check_directory(path)
    lock = DirectoryLock(path)
    try:
        env = open_environment(path, map_size=map_size)
    except BaseException:
        lock.release()
        raise
    try:
        env.reader_check()
        start = _start(env, new_epoch, (path / "data.mdb").stat().st_ino)
    except BaseException:
        env.close()
        lock.release()
        raise
    store = LmdbStore(env, lock, reactor, largest_map_size=largest_map_size, fault=fault)
    return Log(store, reactor, start.epoch, start.position, start.position + LEASE, start.first_epoch)


def renew_epoch(
    path: Path | str, new_epoch: Callable[[], str] = _random_epoch, *, accept_mismatch: bool = False
) -> str:
    """Give the log in ``path``, which no server has open, a new epoch: clients sync from the beginning.

    For what the next start cannot see by itself: a disk that was set back with the same files on it. ``accept_mismatch``
    lets the next start go on with tables of another time. Returns the epoch; raises :class:`LogRefused` like `open_log`.
    """
    path = Path(path)
    check_directory(path)
    lock = DirectoryLock(path)
    try:
        env = open_environment(path)
        try:
            meta = env.open_db(META.name.encode())
            with env.begin(write=True) as txn:
                if accept_mismatch:
                    txn.put(MISMATCH_KEY, b"1", db=meta)
                return _renew(txn, meta, new_epoch)
        finally:
            env.close()
    finally:
        lock.release()


def _checked_reactor(reactor: Any) -> Any:
    for interface in (IReactorFromThreads, IReactorTime):
        if not interface.providedBy(reactor):
            raise TypeError(f"{reactor!r} is no {interface.__name__}")
    return reactor


class _Start(NamedTuple):
    epoch: str
    first_epoch: str
    position: int


def _start(env: Any, new_epoch: Callable[[], str], inode: int) -> _Start:
    """Read epoch and position, write the first lease. The position a restart begins at is the lease that was
    durable before, because ephemeral entries up to there may have been in sync tokens.

    A file that was copied has another inode than the one that was written here: it is what it was when it was copied,
    and clients may know more than it does. So it gets a new epoch, and their tokens count for nothing."""
    meta = env.open_db(META.name.encode())
    log = env.open_db(LOG.name.encode())
    with env.begin(write=True) as txn:
        stored = txn.get(FORMAT_KEY, db=meta)
        if stored is not None and from_u64(stored) != FORMAT:
            raise LogRefused(
                f"the log has format {from_u64(stored)}, this version of folkmoot reads format {FORMAT}"
            )
        if stored is None:
            txn.put(EPOCH_KEY, new_epoch().encode(), db=meta)
            txn.put(FORMAT_KEY, u64(FORMAT), db=meta)
        known = txn.get(INODE_KEY, db=meta)
        if known is not None and from_u64(known) != inode:
            _report.warn("the log is a copy (restored, moved): clients sync from the beginning")
            _renew(txn, meta, new_epoch)
        if known is None or from_u64(known) != inode:
            txn.put(INODE_KEY, u64(inode), db=meta)
        position = from_u64(txn.get(LEASE_KEY, default=u64(0), db=meta))
        with txn.cursor(log) as cursor:
            if cursor.last():
                position = max(position, from_u64(cursor.key()))
        txn.put(LEASE_KEY, u64(position + LEASE), db=meta)
        epoch = txn.get(EPOCH_KEY, db=meta)
        first = txn.get(FIRST_EPOCH_KEY, default=epoch, db=meta)
    return _Start(epoch.decode(), first.decode(), position)


def _renew(txn: Any, meta: Any, new_epoch: Callable[[], str]) -> str:
    """A new epoch; the first one stays known, since it is what the tables are bound to."""
    former, epoch = txn.get(EPOCH_KEY, db=meta), new_epoch()
    txn.put(FIRST_EPOCH_KEY, former, overwrite=False, db=meta)
    txn.put(EPOCH_KEY, epoch.encode(), db=meta)
    return epoch
