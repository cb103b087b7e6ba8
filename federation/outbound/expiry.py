"""To-device messages for servers that are away for so long that they may never come back.

Events wait for nobody: they are read from the rooms when a server returns. To-device messages are nowhere but in its queue,
which would grow as long as people share rooms with users of a dead server.
"""

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from federation.outbound.destination import Destination
from storage.log import destinations as rows
from storage.log.append import Log

GIVE_UP_MS = 30 * 24 * 3600 * 1000
"""A server that has not answered for so long gets none of the messages that waited meanwhile."""
MOST_MESSAGES = 10_000
"""Messages that wait for a server that does not answer; the oldest go."""
CHUNK = 1_000
PAUSE = 0.02
"""Seconds between two servers that had something to be looked through."""

_log = Logger()


class Expiry:
    """Drops messages that wait in vain."""

    def __init__(self, log: Log, clock: IReactorTime, now_ms: Callable[[], int]) -> None:
        self._stream = log
        self._clock = clock
        self._now_ms = now_ms

    async def round(self, destinations: Iterable[Destination]) -> int:
        """Look through the queues of all that are failing; how many messages were dropped."""
        dropped = 0
        for destination in list(destinations):
            if not destination.failures:
                continue
            given_up = self._now_ms() - destination.failing_since >= GIVE_UP_MS
            count = await self._cut(destination.server, 0 if given_up else MOST_MESSAGES)
            if count:
                _log.warn(
                    "{server} has not answered for {days} days: {count} messages to its users' devices are dropped",
                    server=destination.server,
                    days=(self._now_ms() - destination.failing_since) // 86_400_000,
                    count=count,
                )
            dropped += count
        return dropped

    async def _cut(self, server: str, most: int) -> int:
        """Leave the newest ``most`` messages; how many went."""
        with self._stream.snapshot() as snapshot:
            positions = rows.message_positions(snapshot, server)
        surplus = positions[: max(0, len(positions) - most)]
        for start in range(0, len(surplus), CHUNK):
            batch = self._stream.begin()
            for position in surplus[start : start + CHUNK]:
                rows.delete_message(batch, server, position)
            await self._stream.append(batch)
        if positions:
            await deferLater(self._clock, PAUSE)
        return len(surplus)
