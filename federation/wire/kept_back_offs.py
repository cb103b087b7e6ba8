"""Back-offs that outlive the process: a restart does not ask every dead server again, with somebody waiting for each."""

import msgspec
from twisted.logger import Logger

from federation.wire.destinations import BackOff, InMemoryDestinations
from storage.log.append import Log
from storage.log.back_offs import all_back_offs, delete_back_off, put_back_off

_report = Logger()


def keep(back_offs: InMemoryDestinations, log: Log) -> None:
    """Take over what the last run knew, and write down every change from here on.

    Nobody waits for these writes: what a crash loses is one more attempt.
    """
    with log.snapshot() as snapshot:
        rows = [msgspec.msgpack.decode(row, type=tuple[str, BackOff]) for row in all_back_offs(snapshot)]
    for server_name, back_off in sorted(rows, key=lambda row: row[1].retry_at):
        back_offs.restore(server_name, back_off)

    def write(server_name: str, back_off: BackOff | None) -> None:
        batch = log.begin()
        if back_off is None:
            delete_back_off(batch, server_name)
        else:
            put_back_off(batch, server_name, msgspec.msgpack.encode((server_name, back_off)))
        log.append(batch).addErrback(lambda failure: _report.warn("not written: {why}", why=failure.value))

    back_offs.on_change = write
