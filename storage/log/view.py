"""What the typed layers read through, and what a store of bytes has to offer to the log."""

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Protocol

from storage.log.catalog import Table

Rows = Mapping[int, Mapping[bytes, bytes | None]]
"""What one commit writes: table number → key → value, ``None`` deletes."""


class View(Protocol):
    """Point reads: a ``Snapshot`` (durable), a ``Log`` (newest submitted) or a ``Batch`` (its own first)."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or ``None``."""


class Snapshot(Protocol):
    """An unchanging view of what is durable and released, for one turn of the reactor. A context manager."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The value under ``key``, or ``None``."""

    def range(
        self, table: Table, start: bytes, stop: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows with ``start <= key < stop`` in key order (``reverse``: descending), at most ``limit``."""

    def close(self) -> None:
        """End the view. Twice is harmless."""

    def __enter__(self) -> "Snapshot": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """Bytes that survive: the LMDB environment or its twin in memory. Called on the reactor only."""

    def commit(self, rows: Rows, done: Callable[[BaseException | None], None]) -> None:
        """Write ``rows`` durably, all or none, then call ``done`` on the reactor with the error or ``None``.

        Until ``done`` has been called, ``get`` and ``snapshot`` show the time before this commit.
        """

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The durable value."""

    def snapshot(self) -> Snapshot:
        """A view of what is durable."""

    def close(self) -> None:
        """Let go of everything; no commit is under way."""
