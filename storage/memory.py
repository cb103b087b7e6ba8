"""The log's twin in memory: the same :class:`storage.log.append.Log` over sorted dictionaries.

For tests and for embedding. Commits end a turn later through the given clock, so that tests see the order of
things that LMDB shows. What a :class:`MemoryStore` holds survives closing the log: open another one on it.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from twisted.internet.interfaces import IReactorTime

from storage.log.append import EPOCH_KEY, FORMAT_KEY, LEASE, LEASE_KEY, Log
from storage.log.catalog import FORMAT, LOG, META, TABLES, Table
from storage.log.keys import from_u64, u64
from storage.log.view import Rows


class _Rows:
    """One table: a dictionary, and its keys in order."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.keys: list[bytes] = []

    def put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            if self.values.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]
        else:
            if key not in self.values:
                insort(self.keys, key)
            self.values[key] = value


class MemorySnapshot:
    """See :class:`storage.log.view.Snapshot`. Refuses to be read after a later commit: it is for one turn."""

    def __init__(self, store: "MemoryStore") -> None:
        self._store = store
        self._commits = store.commits
        self._closed = False

    def _rows(self, table: Table) -> _Rows:
        if self._closed or self._commits != self._store.commits:
            raise RuntimeError("snapshot read after it was closed or after its turn")
        return self._store.tables[table.number]

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or ``None``."""
        return self._rows(table).values.get(key)

    def range(
        self, table: Table, start: bytes, stop: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with ``start <= key < stop`` in key order (``reverse``: descending), at most ``limit``."""
        rows = self._rows(table)
        keys = rows.keys[bisect_left(rows.keys, start) : bisect_left(rows.keys, stop)]
        if reverse:
            keys.reverse()
        for key in keys if limit is None else keys[:limit]:
            yield key, rows.values[key]

    def close(self) -> None:
        """End the view. Twice is harmless."""
        self._closed = True

    def __enter__(self) -> "MemorySnapshot":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemoryStore:
    """See :class:`storage.log.view.Store`. ``fault`` is called before each step and may raise (for tests)."""

    def __init__(self, clock: IReactorTime, *, fault: Callable[[str], None] | None = None) -> None:
        self.tables = [_Rows() for _ in TABLES]
        self.commits = 0
        self._clock: Any = clock
        self._fault = fault

    def commit(self, rows: Rows, done: Callable[[BaseException | None], None]) -> None:
        """Apply ``rows`` in a later turn, all or none."""
        self._clock.callLater(0, self._apply, rows, done)

    def _apply(self, rows: Rows, done: Callable[[BaseException | None], None]) -> None:
        try:
            if self._fault is not None:
                for step in ("begin", *("put" for _ in rows), "commit"):
                    self._fault(step)
        except Exception as error:
            done(error)
            return
        self.write(rows)
        done(None)

    def write(self, rows: Rows) -> None:
        """Apply ``rows`` now."""
        self.commits += 1
        for number, puts in rows.items():
            table = self.tables[number]
            for key, value in puts.items():
                table.put(key, value)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The durable value."""
        return self.tables[table.number].values.get(key)

    def snapshot(self) -> MemorySnapshot:
        """A view of what is durable."""
        return MemorySnapshot(self)

    def stats(self) -> dict[str, int]:
        """``used``: bytes of keys and values."""
        used = sum(len(key) + len(value) for table in self.tables for key, value in table.values.items())
        return {"used": used}

    def close(self) -> None:
        """Nothing to let go of: the data stays for the next log."""


def open_memory_log(store: MemoryStore, clock: IReactorTime, epoch: str = "memory") -> Log:
    """A log over ``store``; one that was used before goes on behind its durable lease, like LMDB."""
    known = store.get(META, EPOCH_KEY)
    position = from_u64(store.get(META, LEASE_KEY) or u64(0))
    keys = store.tables[LOG.number].keys
    if keys:
        position = max(position, from_u64(keys[-1]))
    store.write(
        {
            META.number: {
                EPOCH_KEY: known or epoch.encode(),
                FORMAT_KEY: u64(FORMAT),
                LEASE_KEY: u64(position + LEASE),
            }
        }
    )
    return Log(store, clock, (known or epoch.encode()).decode(), position, position + LEASE)


def MemoryLog(clock: IReactorTime, epoch: str = "memory") -> Log:
    """A new, empty log in memory."""
    return open_memory_log(MemoryStore(clock), clock, epoch)
