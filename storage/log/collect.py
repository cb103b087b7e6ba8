"""Collecting state nodes that nothing names any more, one room at a time, in small steps beside normal work.

Named are the roots of a room's current state and of every stored event of the room, rejected ones among its outliers
too, as submitted. Nodes are only named by newer states through older ones or written anew, so a node that no root
reaches can become reachable only through a new put of itself. Each step marks what was submitted since the step before
and deletes in the same turn.

A state that was fetched from another server is put before the event that will name it. So a node goes only if the
collection before, an hour ago, found nobody to name it either: no fetch takes that long.
"""

from collections.abc import Callable, Iterable, Iterator, Set

from twisted.internet.defer import Deferred

from storage.log.append import Log
from storage.log.catalog import EVENTS, NODES, OUTLIERS
from storage.log.events import EventRecord
from storage.log.keys import seq_key, u64
from storage.log.rooms import room_meta
from storage.log.state_map import loader, reachable

STEP = 500
"""Rows looked at in one turn."""
PAST_IDS = b"\xff" * 40
"""Behind every event id."""


class NodeCollection:
    """The collection of one room's garbage. Call :meth:`step` in one turn after the other until it returns ``None``."""

    def __init__(
        self, log: Log, room_id: str, suspects: Set[bytes] = frozenset(), roots: Iterable[bytes] = ()
    ) -> None:
        """``suspects`` are the nodes that the room's last collection reached from nowhere, ``roots`` those of its outliers."""
        self._log = log
        self._suspects = suspects
        self._room_id = room_id
        meta = room_meta(log, room_id)
        self._nid = meta.nid if meta else 0
        self._first = self._after = meta.first_seq if meta else 1
        self._known: set[bytes] = set()
        self._roots: list[bytes] = list(roots)
        self._walk: Iterator[bytes] = iter(())
        self._sweep: bytes | None = None
        self.deleted = 0
        """Nodes deleted so far."""
        self.unreached: set[bytes] = set()
        """Nodes that nothing names and that are there still: suspects of the next collection."""

    def step(self) -> "Deferred[int] | None":
        """Do some work now. Returns when to go on (a Deferred of the log), or ``None`` at the end."""
        if not self._mark():
            return self._log.append(self._log.begin())
        return self._delete()

    def _mark(self) -> bool:
        """Mark up to ``STEP`` more nodes or events; whether all that is submitted is marked."""
        left = STEP
        while True:
            for _ in self._walk:
                left -= 1
                if left <= 0:
                    return False
            root = self._next_root()
            if root is None:
                return True
            left -= 1
            self._walk = reachable(loader(self._log, self._nid), root, self._known)

    def _next_root(self) -> bytes | None:
        """A root to walk from, ``b""`` for an event without news, ``None`` when all are marked."""
        if self._roots:
            return self._roots.pop()
        meta = room_meta(self._log, self._room_id)
        if meta is None:
            return None
        if self._first > meta.first_seq:
            # Backfill since the beginning went before the first event seen then.
            self._first -= 1
            return self._take_event(self._first)
        if self._after <= meta.last_seq:
            self._after += 1
            return self._take_event(self._after - 1)
        return meta.state_root if meta.state_root and meta.state_root not in self._known else None

    def _take_event(self, seq: int) -> bytes:
        data = self._log.get(EVENTS, seq_key(self._nid, seq))
        if data is not None:
            record = EventRecord(data)
            self._roots += {record.state_before, record.state_after, record.room_state} - self._known
        return b""

    def _delete(self) -> "Deferred[int] | None":
        prefix = u64(self._nid)
        start = prefix if self._sweep is None else self._sweep
        batch = self._log.begin()
        count = 0
        with self._log.snapshot() as snapshot:
            for key, _ in snapshot.range(NODES, start, u64(self._nid + 1), limit=STEP):
                count += 1
                self._sweep = key + b"\0"
                node = key[8:]
                if node in self._known:
                    continue
                if node in self._suspects:
                    batch.delete(NODES, key)
                    self.deleted += 1
                else:
                    self.unreached.add(node)
        if count < STEP and not batch.puts:
            return None
        return self._log.append(batch)


async def collect_nodes(
    log: Log, room_id: str, suspects: Set[bytes] = frozenset(), roots: Iterable[bytes] = ()
) -> frozenset[bytes]:
    """Collect one room's garbage, giving way to other work after each step; returns the suspects of the next time.

    Raises :class:`storage.log.state_map.MissingNode` for a damaged room, :class:`storage.log.errors.LogUnavailable`.
    """
    collection = NodeCollection(log, room_id, suspects, roots)
    while (going_on := collection.step()) is not None:
        await going_on
    return frozenset(collection.unreached)


async def outlier_roots(log: Log, going_on: Callable[[], bool]) -> dict[int, set[bytes]]:
    """Roots of the states that outliers stand on, by room number; while ``going_on``, giving way after each step."""
    roots: dict[int, set[bytes]] = {}
    after = b""
    while going_on():
        count = 0
        with log.snapshot() as snapshot:
            for key, data in snapshot.range(OUTLIERS, after, PAST_IDS, limit=STEP):
                count += 1
                after = key + b"\0"
                record = EventRecord(data)
                if found := {record.state_before, record.state_after, record.room_state} - {b""}:
                    roots.setdefault(record.room_nid, set()).update(found)
        if count < STEP:
            break
        await log.append(log.begin())
    return roots
