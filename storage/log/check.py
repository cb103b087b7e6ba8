"""Checking a log that no server has open, and rebuilding its indexes (``folkmoot check-log``).

Indexes are the tables that the catalogue marks ``derived``: each of their rows follows from a row elsewhere.
:func:`expected_rows` says which; the check compares both ways, the rebuild writes them anew. Storage does not
parse events: whoever can (hashes, ids, relations) passes ``inspect``.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb
import msgspec

from storage.log.account_data import Datum
from storage.log.append import FORMAT_KEY, LEASE_KEY, Batch, Kind, unpack_entry
from storage.log.catalog import (
    ACCOUNT_DATA,
    ACCOUNT_DATA_POSITIONS,
    DEVICE_LIST_POSITIONS,
    DEVICE_LISTS,
    EVENT_IDS,
    EVENTS,
    FORMAT,
    LOG,
    META,
    NODES,
    OUTLIERS,
    RECEIPT_POSITIONS,
    RECEIPTS,
    RELATIONS,
    ROOM_NIDS,
    ROOMS,
    TABLES,
    THREAD_ROOTS,
    THREADS,
    TIMESTAMPS,
    Table,
)
from storage.log.directory import DirectoryLock, check_directory
from storage.log.env import LmdbSnapshot, open_environment
from storage.log.events import EventRecord
from storage.log.keys import OUTLIER_SEQ, from_seq_key, from_u64, part, seq_key, timestamp_key, u64
from storage.log.receipts import Receipt
from storage.log.relations import Relation, Thread, put_relation
from storage.log.rooms import RoomMeta
from storage.log.state_map import ROOT_SIZE, MissingNode, loader, reachable
from storage.log.view import Snapshot

END: Final = b"\xff" * 511
REBUILT: Final = (
    EVENT_IDS, TIMESTAMPS, ROOM_NIDS, RECEIPT_POSITIONS, ACCOUNT_DATA_POSITIONS, DEVICE_LIST_POSITIONS
)  # fmt: skip
"""Index tables that follow from stored rows alone."""
REBUILT_BY_INSPECTION: Final = (RELATIONS, THREADS, THREAD_ROOTS)
"""Index tables that need to look into events."""
MAX_PROBLEMS: Final = 1000


class Inspection(NamedTuple):
    """What somebody who can parse events says about one."""

    problem: str | None = None
    """What is wrong with it (hash, id, spans), ``None`` if nothing."""
    relation: Relation | None = None


Inspect = Callable[[EventRecord], Inspection]
Progress = Callable[[str, int], None]
"""Called with a table's name and the number of rows looked at so far."""


class Problem(NamedTuple):
    """One thing that is wrong. ``room_id`` is the room that it damages, ``""`` if none is known."""

    table: str
    key: bytes
    text: str
    room_id: str = ""

    def __str__(self) -> str:
        where = f" (room {self.room_id})" if self.room_id else ""
        return f"{self.table} {self.key.hex()}: {self.text}{where}"


class CheckReport:
    """What a check found: ``problems`` (the first thousand), and ``rows`` looked at by table."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.more = 0
        """Problems beyond those listed."""
        self.rows: Counter[str] = Counter()
        self.rebuilt = False

    def add(self, table: Table, key: bytes, text: str, room_id: str = "") -> None:
        """Note a problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(table.name, key, text, room_id))
        else:
            self.more += 1

    def summary(self) -> str:
        """One line for people."""
        found = len(self.problems) + self.more
        rebuilt = "Indexes rebuilt. " if self.rebuilt else ""
        events = self.rows[EVENTS.name] + self.rows[OUTLIERS.name]
        verdict = "no problems" if not found else f"{found} problem{'s' if found > 1 else ''}"
        return f"{rebuilt}{events} events in {self.rows[ROOMS.name]} rooms, {sum(self.rows.values())} rows: {verdict}"


# -- what the indexes should hold --------------------------------------------------------------------------------------


def expected_rows(snapshot: Snapshot) -> Iterator[tuple[Table, bytes, bytes]]:
    """Every row that the tables in ``REBUILT`` should hold: table, key, value. Damaged sources are passed over."""
    for key, record in _records(snapshot, EVENTS):
        assert record.seq is not None
        yield EVENT_IDS, part(record.event_id), key
        yield TIMESTAMPS, timestamp_key(record.room_nid, record.origin_server_ts, record.seq), b""
    for key, record in _records(snapshot, OUTLIERS):
        yield EVENT_IDS, key, seq_key(record.room_nid, OUTLIER_SEQ)
    for _, meta in _decoded(snapshot, ROOMS, RoomMeta):
        yield ROOM_NIDS, u64(meta.nid), meta.room_id.encode()
    for key, receipt in _decoded(snapshot, RECEIPTS, Receipt):
        yield RECEIPT_POSITIONS, part(receipt.room_id) + u64(receipt.position), key
    for key, datum in _decoded(snapshot, ACCOUNT_DATA, Datum):
        yield ACCOUNT_DATA_POSITIONS, _first_part(key) + u64(datum.position), key
    changed: dict[bytes, str] = {}
    for key, value in snapshot.range(LOG, b"\0", END):
        if value[:1] != bytes((Kind.DEVICE_LIST,)):
            continue
        entry = unpack_entry(from_u64(key), value)
        if entry.ref:
            yield DEVICE_LIST_POSITIONS, key, entry.ref + b"\0" + entry.user_id.encode()
        else:
            changed[part(entry.user_id)] = entry.user_id
    for user, position in snapshot.range(DEVICE_LISTS, b"\0", END):
        if user in changed:
            yield DEVICE_LIST_POSITIONS, position, changed[user].encode()


def _records(snapshot: Snapshot, table: Table) -> Iterator[tuple[bytes, EventRecord]]:
    for key, data in snapshot.range(table, b"\0", END):
        try:
            record = EventRecord(data)
            _ = record.event_id
        except ValueError:
            continue
        if (record.seq is None) == (table is OUTLIERS):
            yield key, record


def _decoded(snapshot: Snapshot, table: Table, kind: type[Any]) -> Iterator[tuple[bytes, Any]]:
    decoder = msgspec.msgpack.Decoder(kind)
    for key, data in snapshot.range(table, b"\0", END):
        try:
            yield key, decoder.decode(data)
        except msgspec.DecodeError:
            continue


def _first_part(key: bytes) -> bytes:
    return key[: 33 if key[0] == 0xFF else 1 + key[0]]


# -- checking ----------------------------------------------------------------------------------------------------------


def check_log(
    snapshot: Snapshot, inspect: Inspect | None = None, progress: Progress | None = None
) -> CheckReport:
    """Look at every row of the log. Never raises for damaged data: it is in the report."""
    report = CheckReport()
    tell = progress or (lambda table, rows: None)
    _check_meta(snapshot, report)
    rooms = _check_rooms(snapshot, report)
    _check_entries(snapshot, report)
    tell(LOG.name, report.rows[LOG.name])
    _check_nodes(snapshot, report, rooms)
    tell(NODES.name, report.rows[NODES.name])
    for table in (EVENTS, OUTLIERS):
        _check_events(snapshot, report, table, rooms, inspect)
        tell(table.name, report.rows[table.name])
    _check_indexes(snapshot, report)
    _check_threads(snapshot, report)
    return report


def _check_meta(snapshot: Snapshot, report: CheckReport) -> None:
    stored = snapshot.get(META, FORMAT_KEY)
    if stored is None or from_u64(stored) != FORMAT:
        report.add(META, FORMAT_KEY, "not the format of this version")
    lease = snapshot.get(META, LEASE_KEY)
    last = [from_u64(key) for key, _ in snapshot.range(LOG, b"\0", END, reverse=True, limit=1)]
    if lease is None or (last and last[0] > from_u64(lease)):
        report.add(META, LEASE_KEY, "positions were given out beyond the lease")


def _check_rooms(snapshot: Snapshot, report: CheckReport) -> dict[int, RoomMeta]:
    rooms: dict[int, RoomMeta] = {}
    for key, data in snapshot.range(ROOMS, b"\0", END):
        report.rows[ROOMS.name] += 1
        try:
            meta = msgspec.msgpack.decode(data, type=RoomMeta)
        except msgspec.DecodeError as error:
            report.add(ROOMS, key, f"damaged row: {error}")
            continue
        rooms[meta.nid] = meta
        newest = list(snapshot.range(EVENTS, u64(meta.nid), u64(meta.nid + 1), reverse=True, limit=1))
        last_seq = from_seq_key(newest[0][0])[1] if newest else 0
        if max(last_seq, 0) != meta.last_seq:
            report.add(ROOMS, key, f"last event is {last_seq}, the room says {meta.last_seq}", meta.room_id)
    return rooms


def _check_entries(snapshot: Snapshot, report: CheckReport) -> None:
    for key, value in snapshot.range(LOG, b"\0", END):
        report.rows[LOG.name] += 1
        try:
            entry = unpack_entry(from_u64(key), value)
        except ValueError as error:
            report.add(LOG, key, str(error))
            continue
        if entry.kind not in (Kind.EVENT, Kind.BACKFILL):
            continue
        data = snapshot.get(EVENTS, entry.ref) if len(entry.ref) == 16 else None
        if data is None:
            report.add(LOG, key, "names an event that is not stored", entry.room_id)
        elif data[4:12] != key:
            report.add(LOG, key, "the event that it names has another position", entry.room_id)


def _check_nodes(snapshot: Snapshot, report: CheckReport, rooms: dict[int, RoomMeta]) -> None:
    for key, data in snapshot.range(NODES, b"\0", END):
        report.rows[NODES.name] += 1
        if blake2b(data, digest_size=ROOT_SIZE).digest() != key[8:]:
            meta = rooms.get(from_u64(key))
            report.add(NODES, key, "the node's bytes have another hash", meta.room_id if meta else "")


def _check_events(
    snapshot: Snapshot, report: CheckReport, table: Table, rooms: dict[int, RoomMeta], inspect: Inspect | None
) -> None:
    states = _States(snapshot, report)
    if table is EVENTS:
        for meta in rooms.values():
            states.check(ROOMS, part(meta.room_id), meta.nid, meta.room_id, meta.state_root)
    for key, data in snapshot.range(table, b"\0", END):
        report.rows[table.name] += 1
        known = rooms.get(from_u64(key)) if table is EVENTS else None
        room_id = known.room_id if known else ""
        try:
            record = EventRecord(data)
            problem = _record_problem(key, table, record)
            room_id = room_id or record.room_id
        except ValueError as error:
            report.add(table, key, str(error), room_id)
            continue
        if problem is None and record.room_nid not in rooms and table is EVENTS:
            problem = "belongs to no room"
        if problem is None and table is EVENTS:
            entry = snapshot.get(LOG, u64(record.position))
            if entry is None or entry[-16:] != key:
                problem = "the log has no entry for it"
        if problem is None and inspect is not None:
            found = inspect(record)
            problem = found.problem
            if table is EVENTS and found.relation is not None and not record.redacted:
                relation = found.relation
                place = part(relation.parent) + part(relation.rel_type) + key[8:]
                if snapshot.get(RELATIONS, place) is None:
                    report.add(RELATIONS, place, f"no row for {record.event_id}", room_id)
        if problem is not None:
            report.add(table, key, problem, room_id)
            continue
        for root in {record.state_before, record.state_after, record.room_state}:
            states.check(table, key, record.room_nid, room_id, root)


def _record_problem(key: bytes, table: Table, record: EventRecord) -> str | None:
    place = part(record.event_id)
    if record.seq is not None:
        place = seq_key(record.room_nid, record.seq)
    if (record.seq is None) != (table is OUTLIERS) or place != key:
        return "the record belongs under another key"
    pdu = record.pdu
    if pdu[:1] != b"{" or pdu[-1:] != b"}":
        return "the event's JSON is cut off"
    if any(not start <= end <= len(pdu) for start, end in record.spans):
        return "a span lies outside the event's JSON"
    if not record.sender or not record.type or not record.room_id:
        return "sender, type or room is missing"
    return None


class _States:
    """Whether every node of the states that rooms and events name is stored; each is visited once."""

    def __init__(self, snapshot: Snapshot, report: CheckReport) -> None:
        self._snapshot = snapshot
        self._report = report
        self._room_nid = -1
        self._known: set[bytes] = set()

    def check(self, table: Table, key: bytes, room_nid: int, room_id: str, root: bytes) -> None:
        if room_nid != self._room_nid:
            # Events come sorted by room, so that one room's nodes are in memory at a time.
            self._room_nid, self._known = room_nid, set()
        try:
            for _ in reachable(loader(self._snapshot, room_nid), root, self._known):
                pass
        except (MissingNode, ValueError, msgspec.DecodeError) as error:
            self._report.add(table, key, f"state is damaged: {error}", room_id)


def _check_indexes(snapshot: Snapshot, report: CheckReport) -> None:
    counts: Counter[str] = Counter()
    for table, key, value in expected_rows(snapshot):
        counts[table.name] += 1
        found = snapshot.get(table, key)
        if found is None:
            report.add(table, key, "row is missing")
        elif found != value:
            report.add(table, key, "row says something else than what it is derived from")
    for table in REBUILT:
        rows = sum(1 for _ in snapshot.range(table, b"\0", END))
        report.rows[table.name] += rows
        if rows > counts[table.name]:
            _find_strays(snapshot, report, table)


def _find_strays(snapshot: Snapshot, report: CheckReport, table: Table) -> None:
    wanted = {key for other, key, _ in expected_rows(snapshot) if other is table}
    for key, _ in snapshot.range(table, b"\0", END):
        if key not in wanted:
            report.add(table, key, "row stands for nothing")


def _check_threads(snapshot: Snapshot, report: CheckReport) -> None:
    for key, value in snapshot.range(RELATIONS, b"\0", END):
        report.rows[RELATIONS.name] += 1
        child = msgspec.msgpack.decode(value)
        if snapshot.get(EVENTS, seq_key(child[5], child[6])) is None:
            report.add(RELATIONS, key, f"the child {child[0]} is not stored")
    for key, root in snapshot.range(THREADS, b"\0", END):
        report.rows[THREADS.name] += 1
        data = snapshot.get(THREAD_ROOTS, part(root.decode()))
        if data is None or msgspec.msgpack.decode(data, type=Thread).last_seq != from_seq_key(key)[1]:
            report.add(THREADS, key, f"no summary for the thread below {root.decode()}")
    roots = sum(1 for _ in snapshot.range(THREAD_ROOTS, b"\0", END))
    report.rows[THREAD_ROOTS.name] += roots
    if roots != report.rows[THREADS.name]:
        report.add(THREAD_ROOTS, b"", f"{roots} summaries for {report.rows[THREADS.name]} threads")


# -- rebuilding --------------------------------------------------------------------------------------------------------


class _WriteThrough:
    """Stands in for a log below a ``Batch``: reads what is in the open transaction."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.get = snapshot.get


def rebuild_indexes(env: Any, dbs: list[Any], inspect: Inspect | None = None) -> None:
    """Write every index anew, in one transaction; relations and threads only with ``inspect``.

    The map grows as needed. A kill in the middle leaves the log as it was.
    """
    while True:
        try:
            with env.begin(write=True) as txn:
                _rebuild(txn, dbs, inspect)
            return
        except lmdb.MapFullError:
            env.set_mapsize(env.info()["map_size"] * 2)


def _rebuild(txn: Any, dbs: list[Any], inspect: Inspect | None) -> None:
    snapshot = LmdbSnapshot(txn, dbs, None)
    for table in REBUILT:
        txn.drop(dbs[table.number], delete=False)
    for table, key, value in expected_rows(snapshot):
        txn.put(key, value, db=dbs[table.number])
    if inspect is None:
        return
    for table in REBUILT_BY_INSPECTION:
        txn.drop(dbs[table.number], delete=False)
    for key, record in _records(snapshot, EVENTS):
        relation = None if record.redacted else inspect(record).relation
        if relation is None:
            continue
        batch = Batch(_WriteThrough(snapshot))  # type: ignore[arg-type]
        room_nid, seq = from_seq_key(key)
        put_relation(batch, room_nid, seq, record.event_id, record.sender, relation)
        for number, rows in batch.puts.items():
            for row, content in rows.items():
                if content is None:
                    txn.delete(row, db=dbs[number])
                else:
                    txn.put(row, content, db=dbs[number])


def check_directory_log(
    path: Path, rebuild: bool = False, inspect: Inspect | None = None, progress: Progress | None = None
) -> CheckReport:
    """Check the log in directory ``path``, after rebuilding its indexes if wanted.

    Raises :class:`storage.log.errors.LogRefused` when a server is running on it.
    """
    check_directory(path)
    lock = DirectoryLock(path)
    try:
        env = open_environment(path)
        try:
            dbs = [env.open_db(table.name.encode()) for table in TABLES]
            if rebuild:
                rebuild_indexes(env, dbs, inspect)
            with env.begin() as txn:
                report = check_log(LmdbSnapshot(txn, dbs, None), inspect, progress)
            report.rebuilt = rebuild
            return report
        finally:
            env.close()
    finally:
        lock.release()
