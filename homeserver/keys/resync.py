"""Fetching whole device lists of other servers' users: ``GET /user/devices`` (Server-Server API, "Device Management").

Lists that are stale are fetched server by server, one after the other. A server that does not answer is left alone until it
shows life or its time has come; a list that it refuses waits by itself. What is stale is written down (``peer_devices``),
so that a restart goes on with it. Whoever needs a list now joins the fetch that is under way.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from federation.outbound.calls import DevicesAnswer
from federation.rules.errors import MatrixError
from federation.wire.errors import AnswerNotUnderstood, AnswerTooLarge, PeerUnreachable
from homeserver.keys.lookup import server_of
from homeserver.keys.peer_devices import PeerDevices
from homeserver.keys.remote_shapes import DeviceList, device_list
from storage.log.remote_devices import RemoteDevices

SERVERS_AT_ONCE = 20
PER_MINUTE = 300
"""Lists that are fetched from one server within a minute: what it says of them changes our log."""
FIRST_DELAY_MS = 30_000
LONGEST_DELAY_MS = 6 * 3600 * 1000

_report = Logger()


class DeviceSource(Protocol):
    """The call that asks another server (`federation.outbound.calls.Calls`)."""

    async def user_devices(self, server: str, user_id: str) -> DevicesAnswer:
        """A user's devices. Raises PeerUnreachable or RequestRefused."""


class _Lane:
    """The stale lists of one server."""

    __slots__ = ("busy", "due", "failures", "heap", "minute", "not_before", "paced_until", "runs", "timer")

    def __init__(self) -> None:
        self.due: dict[str, int] = {}
        self.heap: list[tuple[int, str]] = []
        self.busy = False
        self.timer: IDelayedCall | None = None
        self.failures = 0
        self.not_before = 0
        self.minute = 0
        self.paced_until = 0
        self.runs = 0

    def put(self, user_id: str, at: int) -> None:
        self.due[user_id] = at
        heappush(self.heap, (at, user_id))

    def first(self) -> tuple[int, str] | None:
        """Who is next, and when."""
        while self.heap:
            at, user_id = self.heap[0]
            if self.due.get(user_id) == at:
                return at, user_id
            heappop(self.heap)
        return None


class Resync:
    """Keeps lists fresh.

    ``now_ms`` is a steady clock (`federation.wire.steady_time`), ``dice`` gives random numbers from 0 up to 1.
    """

    def __init__(
        self,
        devices: PeerDevices,
        source: DeviceSource,
        tracked: Callable[[str], bool],
        clock: Any,
        now_ms: Callable[[], int],
        dice: Callable[[], float],
    ) -> None:
        self._devices = devices
        self._source = source
        self._tracked = tracked
        self._clock = clock
        self._now_ms = now_ms
        self._dice = dice
        self._lanes: dict[str, _Lane] = {}
        self._slots = DeferredSemaphore(SERVERS_AT_ONCE)
        self._running: dict[str, list[Deferred[RemoteDevices]]] = {}
        self._stopped = False

    def wanted(self, user_id: str) -> None:
        """A list is stale: fetch it as soon as its server may be asked."""
        row = self._devices.get(user_id)
        if row is None or self._stopped:
            return
        server = server_of(user_id)
        lane = self._lanes.setdefault(server, _Lane())
        # A wait that was written down while the wall clock went ahead is no longer than any other.
        longest = self._now_ms() + int(LONGEST_DELAY_MS * 1.2)
        lane.put(user_id, min(max(row.retry_at, self._now_ms()), longest))
        self._poke(server, lane)

    def now(self, user_id: str) -> "Deferred[RemoteDevices]":
        """Fetch a list now, or join the fetch that is under way.

        Fails with PeerUnreachable or MatrixError when there is no usable answer.
        """
        waiting: Deferred[RemoteDevices] = Deferred()
        if user_id in self._running:
            self._running[user_id].append(waiting)
        else:
            self._running[user_id] = [waiting]
            Deferred.fromCoroutine(self._fetch(user_id)).addBoth(self._fetched, user_id)
        return waiting

    def alive(self, server: str) -> None:
        """A server has shown life: if it was left alone, go on with it."""
        lane = self._lanes.get(server)
        if lane is not None and lane.failures:
            lane.failures = lane.not_before = 0
            self._poke(server, lane)

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopped = True
        for lane in self._lanes.values():
            if lane.timer is not None and lane.timer.active():
                lane.timer.cancel()

    async def _fetch(self, user_id: str) -> RemoteDevices:
        row = self._devices.get(user_id)
        found = await self._ask(user_id)
        if not self._tracked(user_id):
            raise MatrixError(404, "M_NOT_FOUND", "The user is in no room of ours any more")
        return self._devices.store(user_id, found, 0 if row is None else row.marks)

    async def _ask(self, user_id: str) -> DeviceList:
        server = server_of(user_id)
        answer = await self._source.user_devices(server, user_id)
        if answer.user_id != user_id:
            raise AnswerNotUnderstood(server, "the devices of somebody else")
        devices = [(one.get("device_id"), one.get("keys"), one.get("device_display_name")) for one in answer.devices]
        return device_list(user_id, answer.stream_id, devices, answer.master_key, answer.self_signing_key)

    def _fetched(self, result: Any, user_id: str) -> None:
        for waiting in self._running.pop(user_id):
            (waiting.errback if isinstance(result, Failure) else waiting.callback)(result)

    def _poke(self, server: str, lane: _Lane) -> None:
        """Go on with a server: now, or when the first of its lists is due."""
        if lane.busy or self._stopped:
            return
        if lane.timer is not None and lane.timer.active():
            lane.timer.cancel()
        first = lane.first()
        if first is None:
            return
        at, user_id = first
        wait = max(at, lane.not_before, lane.paced_until) - self._now_ms()
        if wait > 0:
            lane.timer = self._clock.callLater(wait / 1000, self._poke, server, lane)
            return
        lane.busy = True
        del lane.due[user_id]
        work = self._slots.run(lambda: Deferred.fromCoroutine(self._refresh(lane, user_id)))
        work.addErrback(lambda failure: _report.failure("the devices of {user} were not fetched", failure, user=user_id))
        work.addCallback(lambda _: self._go_on(server, lane))

    def _go_on(self, server: str, lane: _Lane) -> None:
        lane.busy = False
        self._clock.callLater(0, self._poke, server, lane)

    async def _refresh(self, lane: _Lane, user_id: str) -> None:
        row = self._devices.get(user_id)
        if self._stopped or row is None or not row.stale or not self._tracked(user_id):
            return
        self._count(lane)
        try:
            await self.now(user_id)
        except (MatrixError, AnswerNotUnderstood, AnswerTooLarge):
            retry_at = self._now_ms() + self._delay(row.failures + 1)
            lane.put(user_id, retry_at)
            self._devices.failed(user_id, retry_at)
        except PeerUnreachable as problem:
            lane.failures += 1
            lane.not_before = problem.retry_at or self._now_ms() + self._delay(lane.failures)
            lane.put(user_id, self._now_ms())
            if row.failures == 0:
                self._devices.failed(user_id, 0)
        else:
            lane.failures = lane.not_before = 0

    def _count(self, lane: _Lane) -> None:
        """At most so many in a minute."""
        minute = self._now_ms() // 60_000
        if minute != lane.minute:
            lane.minute, lane.runs = minute, 0
        lane.runs += 1
        if lane.runs >= PER_MINUTE:
            lane.paced_until = (minute + 1) * 60_000

    def _delay(self, failures: int) -> int:
        delay = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(failures - 1, 20))
        return int(delay * (0.8 + 0.4 * self._dice()))
