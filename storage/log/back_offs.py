"""For how long servers that do not answer requests are left alone: one row for each that is in trouble."""

from collections.abc import Iterator

from storage.log.append import Batch
from storage.log.catalog import BACK_OFFS
from storage.log.keys import part
from storage.log.view import Snapshot


def put_back_off(batch: Batch, server: str, row: bytes) -> None:
    """Write the back-off of a server."""
    batch.put(BACK_OFFS, part(server), row)


def delete_back_off(batch: Batch, server: str) -> None:
    """The server is well."""
    batch.delete(BACK_OFFS, part(server))


def all_back_offs(snapshot: Snapshot) -> Iterator[bytes]:
    """The rows of all servers."""
    for _, row in snapshot.range(BACK_OFFS, b"\0", b"\xff" * 34):
        yield row
