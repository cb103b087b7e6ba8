"""Chores that nobody waits for: expired tokens, overfull inboxes, old transaction ids, state nodes that nothing names any more.

Each runs in small steps beside normal work; a chore that fails is logged and tried again the next time.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from storage.log import transactions
from storage.log.append import Log
from storage.log.collect import collect_nodes, outlier_roots
from storage.log.inbox import InboxTrim
from storage.log.rooms import all_rooms
from storage.tables import access_tokens, refresh_tokens
from storage.tables.database import Cursor, Database

INTERVAL = 3600.0
"""Seconds between two rounds."""

TRANSACTION_ROUNDS = 24
"""For how many rounds a transaction id is remembered at least: clients repeat a request within minutes, or a day."""

KEEP_EXPIRED = 30 * 24 * 3600 * 1000
"""Milliseconds for which an expired token is remembered: a client that comes late hears that it may log in again and keep
its keys (``soft_logout``), and not that it was logged out."""

ROOMS_AT_ONCE = 100
PAUSE = 0.05
"""Seconds between two rooms, so that the collection leaves the reactor to the people."""


class Upkeep:
    """Does the chores once an hour, the first time an hour after the start."""

    def __init__(
        self, log: Log, database: Database, clock: Any, now_ms: Callable[[], int], max_inbox_size: int
    ) -> None:
        """``max_inbox_size``: bytes of to-device messages that wait for one device at most."""
        self._max_inbox_size = max_inbox_size
        self._log = log
        self._database = database
        self._clock = clock
        self._now_ms = now_ms
        self._positions: deque[int] = deque(maxlen=TRANSACTION_ROUNDS)
        self._loop = LoopingCall(self._round)
        self._loop.clock = clock
        self._suspects: dict[int, frozenset[bytes]] = {}
        """By room number, the nodes that the last collection reached from nowhere."""
        self._stopped = False
        self._report = Logger()

    def start(self) -> None:
        """Begin to count the hours."""
        self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped = True
        if self._loop.running:
            self._loop.stop()

    def _round(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self.round())

    async def round(self) -> None:
        """All chores, one after the other."""
        for chore in (self.expire_tokens, self.trim_inboxes, self.prune_transactions, self.collect_nodes):
            if self._stopped:
                return
            try:
                await chore()
            except Exception:
                self._report.failure("{chore} failed; it is tried again in an hour", chore=chore.__name__)

    async def expire_tokens(self) -> None:
        """Delete tokens that expired `KEEP_EXPIRED` ago, those of abandoned sessions that could be refreshed too."""
        before = self._now_ms() - KEEP_EXPIRED

        def work(cur: Cursor) -> None:
            access_tokens.delete_expired(cur, before)
            refresh_tokens.delete_expired_sessions(cur, before)

        await self._database.run(work)

    async def trim_inboxes(self) -> None:
        """Delete the oldest messages of devices that have more waiting than `max_inbox_size` allows."""
        trim = InboxTrim(self._log, self._max_inbox_size)
        while not self._stopped and (going_on := trim.step()) is not None:
            await going_on
        if trim.deleted:
            self._report.warn("{count} to-device messages for devices that fetch none are dropped", count=trim.deleted)

    async def prune_transactions(self) -> None:
        """Forget the transaction ids that were used longer than `TRANSACTION_ROUNDS` rounds ago."""
        full = len(self._positions) == self._positions.maxlen
        oldest = self._positions[0] if full else 0
        self._positions.append(self._log.position)
        start: bytes | None = b"\0" if oldest else None
        while start is not None and not self._stopped:
            batch = self._log.begin()
            with self._log.snapshot() as snapshot:
                start = transactions.prune(batch, snapshot, oldest, start)
            await self._log.append(batch)

    async def collect_nodes(self) -> None:
        """Delete state nodes that were unreachable the last time already, room by room."""
        suspects, self._suspects = self._suspects, {}
        roots = await outlier_roots(self._log, lambda: not self._stopped)
        after = ""
        while not self._stopped:
            with self._log.snapshot() as snapshot:
                rooms = [(meta.room_id, meta.nid) for meta in all_rooms(snapshot, after, ROOMS_AT_ONCE)]
            for room_id, nid in rooms:
                if self._stopped:
                    return
                try:
                    unreached = await collect_nodes(
                        self._log, room_id, suspects.get(nid, frozenset()), roots.get(nid, ())
                    )
                except ValueError:
                    self._report.failure("{room_id} is damaged and nothing in it is collected", room_id=room_id)
                    continue
                if unreached:
                    self._suspects[nid] = unreached
                await deferLater(self._clock, PAUSE)
            if len(rooms) < ROOMS_AT_ONCE:
                return
            after = rooms[-1][0]
