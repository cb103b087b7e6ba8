"""What of presence outlives the process: status messages, durable when acknowledged, and when people were last active.

Who is online does not: after a restart, those are who sync again. The clock of `Presence` begins anew with the process
or the machine, so that rows hold wall time.
"""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from homeserver.ephemeral.presence import MAX_USERS, Presence
from storage.log.append import Batch, Log
from storage.log.errors import LogUnavailable
from storage.log.presence import KeptPresence, all_presence, delete_presence, put_presence

SAVE_EVERY = 60.0
"""Seconds between two savings of who was active: what a killed server forgets at most."""
ROWS_AT_ONCE = 1_000


class PresenceMemory:
    """Reads the rows at the start and writes them as they change. ``now_ms`` is wall time."""

    def __init__(self, log: Log, presence: Presence, clock: IReactorTime, now_ms: Callable[[], int]) -> None:
        self._log = log
        self._presence = presence
        self._clock = clock
        self._now_ms = now_ms
        self._loop = LoopingCall(self._save_active)
        self._loop.clock = clock
        self._report = Logger()
        if presence.enabled:
            self._load()

    def start(self) -> None:
        """Begin to write down, every minute, who was active."""
        if self._presence.enabled:
            self._loop.start(SAVE_EVERY, now=False)

    async def stop(self) -> None:
        """Write down what is left; durable with the log's close, which does not wait for a disk that hangs."""
        if self._loop.running:
            self._loop.stop()
        self._save_active()

    async def save(self, user_ids: Iterable[str]) -> None:
        """Make durable what is to be kept of these users. Raises LogUnavailable."""
        batch = self._log.begin()
        for user_id in user_ids:
            active, status = self._presence.kept(user_id)
            ts = None if active is None else self._now_ms() - int((self._clock.seconds() - active) * 1000)
            put_presence(batch, KeptPresence(user_id, ts, status))
        await self._log.append(batch)

    def forget(self, batch: Batch, user_id: str) -> None:
        """Keep nothing of a user, in memory and, with this batch, in the log."""
        self._presence.forget(user_id)
        delete_presence(batch, user_id)

    async def save_active(self) -> None:
        """Write down those who were active since the last time."""
        active = list(self._presence.take_active())
        parts = [active[start : start + ROWS_AT_ONCE] for start in range(0, len(active), ROWS_AT_ONCE)]
        # All are submitted in this turn.
        for written in [Deferred.fromCoroutine(self.save(part)) for part in parts]:
            try:
                await written
            except LogUnavailable as error:
                self._report.warn("Cannot write down who was active: {error}", error=error)

    def _save_active(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self.save_active())

    def _load(self) -> None:
        now, now_ms = self._clock.seconds(), self._now_ms()
        with self._log.snapshot() as snapshot:
            for row in all_presence(snapshot, MAX_USERS):
                # A wall clock that was put back makes nobody active in the future.
                active = None if row.active_ts is None else now - max(0, now_ms - row.active_ts) / 1000
                self._presence.restore(row.user_id, active, row.status)
