"""The queues towards other servers: followers of the log, one lane for each destination.

The log is read once, as it is released; what concerns a destination goes into its lane as a reference. What
survives a restart: a cursor (everything before it is accepted or belongs to a destination that is *behind*), a row for
each destination with its own cursor and back-off, and to-device messages. So a destination that is away costs
one row, whatever happens meanwhile, and when it comes back the log is read from its cursor (``catch_up``).

A sign of life ends a back-off: an answered transaction, or a signed request that came in (``alive``).
"""

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from federation.outbound.catch_up import Due, missed
from federation.outbound.destination import LONGEST_DELAY_MS, Destination, Stored
from federation.outbound.dispatch import Dispatch
from federation.outbound.edus import EduRoutes
from federation.outbound.expiry import Expiry
from federation.outbound.lane import DeviceChange, Lane
from federation.outbound.ports import DeviceUpdates, Hosts, PresenceOf, TransactionSender, TypingUsers
from federation.rules.ids import server_name_of
from federation.wire.steady_time import steady_ms
from storage.log import destinations as rows
from storage.log import events as event_log
from storage.log.append import Entry, Kind, Log
from storage.log.keys import from_seq_key, u64
from storage.log.read import entries as read_entries
from storage.log.read import follower_cursor, put_follower_cursor

CURSOR = "federation"
CHECKPOINT_SECONDS = 30.0
EXPIRY_SECONDS = 3600.0
REPLAY_CHUNK = 1_000
STARTS_PER_SECOND = 20
"""How many lanes that are no answer to something new (hellos, ends of back-offs) begin in one second."""
UNSURE_AT_ONCE = 20
"""Transactions under way to destinations whose last one failed; they never take a slot from the others."""
SURE_AT_ONCE = 300
MOST_COUNTED = 10_000
"""Messages to devices of one server that are counted for the operator."""

_log = Logger()


class Outbound:
    """All destinations. Add ``follow`` to the feed behind the members' and hosts' caches, then ``start``."""

    def __init__(
        self,
        *,
        server_name: str,
        log: Log,
        sender: TransactionSender,
        hosts: Hosts,
        devices: DeviceUpdates,
        clock: Any,
        now_ms: Callable[[], int],
        dice: Callable[[], float],
        typing: TypingUsers | None = None,
        presence: PresenceOf | None = None,
        may_send: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """``dice`` gives random numbers from 0 up to 1; ``may_send`` says whether a server is federated with at all."""
        self.server_name = server_name
        self._suffix = f":{server_name}"
        self._stream = log
        self._hosts = hosts
        self._clock = clock
        self._now_ms = steady_ms(clock, now_ms)
        self._may_send = may_send
        self._lanes: dict[str, Lane] = {}
        self._dispatch = Dispatch(server_name, log, sender, devices, now_ms, self._now_ms, dice)
        self._sure = DeferredSemaphore(SURE_AT_ONCE)
        self._unsure = DeferredSemaphore(UNSURE_AT_ONCE)
        self._routed = log.position
        self._checkpoint_at = log.position
        self._woken: deque[Lane] = deque()
        self._later: list[tuple[int, str]] = []
        self._timers: dict[str, IDelayedCall] = {}
        self._paced_until = 0
        self._started = False
        self._replaying = False
        self._stopped = False
        self._expiry = Expiry(log, clock, self._now_ms)
        self._edus = EduRoutes(self, log, hosts, server_name, clock, typing, presence)

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take up where the last run ended: who was behind waits out its back-off, everybody else hears a hello."""
        self._started = True
        now = self._now_ms()
        with self._stream.snapshot() as snapshot:
            stored = [msgspec.msgpack.decode(row, type=Stored) for row in rows.all_destinations(snapshot)]
            cursor = follower_cursor(snapshot, CURSOR)
        for number, row in enumerate(stored):
            # A wait that was written down while the wall clock went ahead is no longer than any other.
            row.retry_at = min(row.retry_at, now + LONGEST_DELAY_MS)
            lane = Lane(Destination.restored(row), loaded=not row.behind)
            lane.hello = not row.behind
            self._lanes[row.server] = lane
            self._schedule(lane, max(row.retry_at, now + 1 + number * 1000 // STARTS_PER_SECOND))
        if cursor is None:
            self._checkpoint()
        else:
            self._replay(cursor[0])
        self._timer("checkpoint", CHECKPOINT_SECONDS, self._tick_checkpoint)
        self._timer("expiry", EXPIRY_SECONDS, self._tick_expiry)
        self._edus.start()

    def stop(self) -> None:
        """Send nothing more and write down what is left to do; in time to be durable with the log's close."""
        if self._stopped or not self._started:
            return
        self._stopped = True
        self._edus.stop()
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        batch = self._stream.begin()
        for lane in self._lanes.values():
            if lane.first_unsent() is not None:
                lane.let_go()
                self._dispatch.write(batch, lane)
        put_follower_cursor(batch, CURSOR, self._routed)
        self._submit(batch)

    # -- following the log -------------------------------------------------------------------------------------------

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take released entries in."""
        if not self._started or self._stopped:
            return
        for entry in entries:
            self._route(entry)
            self._routed = entry.position

    def _route(self, entry: Entry) -> None:
        kind = entry.kind
        try:
            if kind == Kind.EVENT or kind == Kind.BACKFILL:
                self._route_event(entry)
            elif kind == Kind.FEDERATION:
                self._route_message(entry)
            self._edus.route(entry)
        except ValueError:
            _log.failure("what position {position} names is damaged and not sent on", position=entry.position)

    def _route_event(self, entry: Entry) -> None:
        if not entry.user_id.endswith(self._suffix) and not self._relayed(entry):
            return
        if entry.kind == Kind.BACKFILL and from_seq_key(entry.ref)[1] <= 0:
            return
        note: Any = entry.note
        to = dict.fromkeys(self._hosts.servers(entry.room_id))
        target = self._target(entry)
        if target is not None:
            self._add_target(to, target, note)
        if target is None or not target.endswith(self._suffix):
            # The sender's server has its event, unless we made it: the invite of a user of ours, redeemed by e-mail.
            to.pop(server_name_of(entry.user_id), None)
        due = Due(entry.position, entry.ref)
        for server in to:
            lane = self.lane(server)
            if lane is None or (self._replaying and self._is_from_before(entry, server)):
                continue
            lane.put_event(due)
            if entry.room_id not in lane.rooms:
                self._share(lane, entry.room_id, entry.position)
            self.look_at(lane)

    def _is_from_before(self, entry: Entry, server: str) -> bool:
        """Whether an event that is replayed is older than the server's part in the room."""
        since = rows.room_since(self._stream, server, entry.room_id)
        if since is None:  # nothing was sent to it from this room, or what says so was lost in a crash
            since = self._hosts.joined_since(server, entry.room_id)
        return entry.position < since

    def _relayed(self, entry: Entry) -> bool:
        """Whether an event of another server is ours to send on: it came in through send_join and the like."""
        note: Any = entry.note
        if note is not None:
            return note.record is not None and bool(note.record.flags & event_log.RELAYED)
        if entry.kind != Kind.EVENT:
            return False
        with self._stream.snapshot() as snapshot:
            record = event_log.event_at(snapshot, *from_seq_key(entry.ref))
        return record is not None and bool(record.flags & event_log.RELAYED)

    def _target(self, entry: Entry) -> str | None:
        """The user whose membership an event changes, None for other events."""
        if entry.note is not None:
            return getattr(entry.note, "target", None)
        with self._stream.snapshot() as snapshot:
            record = event_log.event_at(snapshot, *from_seq_key(entry.ref))
        return record.state_key if record is not None and record.type == "m.room.member" else None

    def _add_target(self, to: dict[str, None], target: str, note: Any) -> None:
        """Who leaves, is thrown out or whose knock is answered hears of it; an invite has a way of its own."""
        server = server_name_of(target)
        if server == self.server_name or not server:
            return
        if note is None or note.membership != "invite" or note.prev_membership == "knock":
            to[server] = None

    def _share(self, lane: Lane, room_id: str, position: int) -> None:
        """Remember that a room is shared with a server: from there it is caught up."""
        lane.rooms.add(room_id)
        server = lane.destination.server
        if rows.room_since(self._stream, server, room_id) is None:
            batch = self._stream.begin()
            rows.put_room(batch, server, room_id, position)
            self._submit(batch)

    def _route_message(self, entry: Entry) -> None:
        lane = self.lane(entry.ref.decode())
        if lane is not None:
            lane.messages = lane.messages or entry.position
            self.look_at(lane)

    def _replay(self, cursor: int) -> None:
        """Route what was released after the last checkpoint; peers know what reaches them twice."""
        self._replaying = True
        upto = self._stream.position
        while True:
            with self._stream.snapshot() as snapshot:
                chunk = list(read_entries(snapshot, cursor, upto, REPLAY_CHUNK))
            for entry in chunk:
                self._route(entry)
            if len(chunk) < REPLAY_CHUNK:
                break
            cursor = chunk[-1].position
        self._replaying = False
        self._routed = upto

    # -- lanes -------------------------------------------------------------------------------------------------------

    def lane(self, server: str) -> Lane | None:
        """The lane of a destination; None when there is nobody to send to."""
        lane = self._lanes.get(server)
        if lane is None:
            if not server or server == self.server_name or not self._may_send(server):
                return None
            lane = self._lanes[server] = Lane(Destination(server))
            batch = self._stream.begin()
            self._dispatch.write(batch, lane)
            self._submit(batch)
        return lane

    def alive(self, server: str) -> None:
        """A server has shown life (a signed request of its came in): try it now if it was given up for a while."""
        lane = self._lanes.get(server)
        if lane is not None and lane.destination.alive(self._now_ms()):
            self.look_at(lane)

    def wake(self, server: str) -> None:
        """Try a destination now, whatever its back-off (an operator's wish)."""
        lane = self.lane(server)
        if lane is not None:
            lane.destination.retry_at = 0
            lane.hello = True
            self.look_at(lane)

    def look_at(self, lane: Lane) -> None:
        """Look at a lane at the end of this turn, so that what comes together is sent together."""
        if lane.running or self._stopped:
            return
        if lane.scheduled and lane.destination.retry_at > self._now_ms():
            return
        lane.running = True
        if not self._woken:
            self._clock.callLater(0, self._run_woken)
        self._woken.append(lane)

    def _run_woken(self) -> None:
        woken, self._woken = self._woken, deque()
        for lane in woken:
            Deferred.fromCoroutine(self._run(lane)).addErrback(self._failed, lane)

    def _failed(self, failure: Any, lane: Lane) -> None:
        _log.failure("the queue to {server} failed", failure, server=lane.destination.server)
        lane.running = False
        lane.flight = None
        lane.destination.in_flight = False
        self._schedule(lane, self._now_ms() + 60_000)

    async def _run(self, lane: Lane) -> None:
        """Send until nothing waits or the destination fails."""
        destination = lane.destination
        try:
            while lane.busy and not self._stopped:
                if not destination.ready(self._now_ms()):
                    self._schedule(lane, destination.retry_at)
                    return
                slots = self._unsure if destination.failures else self._sure
                await slots.acquire()
                try:
                    if self._stopped:
                        return
                    if not lane.loaded:
                        self._load(lane)
                    await self._dispatch.step(lane)
                finally:
                    slots.release()
            if destination.behind and not lane.busy:
                destination.behind = False
                batch = self._stream.begin()
                self._dispatch.write(batch, lane)
                self._submit(batch)
        finally:
            lane.running = False

    def _load(self, lane: Lane) -> None:
        """Read from the log what the destination has missed."""
        destination = lane.destination
        server = destination.server
        upto = self._routed
        with self._stream.snapshot() as snapshot:
            found = missed(snapshot, server, destination.cursor, upto, self.server_name, self._hosts)
            waiting = rows.messages(snapshot, server, 1)
        lane.events.extend(found.events)
        lane.devices.extend(DeviceChange(at, user, device, at, -1) for at, user, device in found.users)
        lane.messages = waiting[0][0] if waiting else 0
        lane.loaded = True
        if found.gone and not found.events:
            batch = self._stream.begin()
            for room_id in found.gone:
                lane.rooms.discard(room_id)
                rows.delete_room(batch, server, room_id)
            self._submit(batch)
        if not lane.busy:
            lane.hello = True

    # -- time --------------------------------------------------------------------------------------------------------

    def _schedule(self, lane: Lane, at: int) -> None:
        """Look at a lane at a time (ms); an earlier appointment stays."""
        if self._stopped or (lane.scheduled and lane.scheduled <= at):
            return
        lane.scheduled = at
        heappush(self._later, (at, lane.destination.server))
        self._arm()

    def _arm(self) -> None:
        if not self._later:
            return
        delay = max(0.0, (max(self._later[0][0], self._paced_until) - self._now_ms()) / 1000)
        timer = self._timers.get("later")
        if timer is None or not timer.active():
            self._timer("later", delay, self._run_later)
        elif timer.getTime() > self._clock.seconds() + delay:
            timer.reset(delay)

    def _run_later(self) -> None:
        now = self._now_ms()
        started = 0
        while self._later and self._later[0][0] <= now:
            if started >= STARTS_PER_SECOND:
                self._paced_until = now + 1000
                break
            at, server = heappop(self._later)
            lane = self._lanes.get(server)
            if lane is not None and lane.scheduled == at:
                lane.scheduled = 0
                started += 1
                self.look_at(lane)
        self._arm()

    def _timer(self, name: str, delay: float, call: Callable[[], None]) -> None:
        if not self._stopped:
            self._timers[name] = self._clock.callLater(delay, call)

    def _tick_expiry(self) -> None:
        work = Deferred.fromCoroutine(self._expiry.round(lane.destination for lane in self._lanes.values()))
        work.addErrback(lambda failure: _log.failure("looking for messages that wait in vain failed", failure))
        work.addCallback(lambda _: self._timer("expiry", EXPIRY_SECONDS, self._tick_expiry))

    # -- durability --------------------------------------------------------------------------------------------------

    def _tick_checkpoint(self) -> None:
        self._checkpoint()
        self._timer("checkpoint", CHECKPOINT_SECONDS, self._tick_checkpoint)

    def _checkpoint(self) -> None:
        """Move the cursor to before the first thing that waits for a destination which is not behind."""
        upto = self._routed
        for lane in self._lanes.values():
            if not lane.destination.behind:
                first = lane.first_unsent()
                if first is not None:
                    upto = min(upto, first - 1)
        if upto > self._checkpoint_at or follower_cursor(self._stream, CURSOR) is None:
            self._checkpoint_at = upto
            batch = self._stream.begin()
            put_follower_cursor(batch, CURSOR, upto)
            self._submit(batch)

    def _submit(self, batch: Any) -> None:
        self._stream.append(batch).addErrback(lambda failure: _log.warn("not written: {why}", why=failure.value))

    # -- for operators -----------------------------------------------------------------------------------------------

    def peers(self) -> list[dict[str, Any]]:
        """Every destination: what waits for it in memory, whether more lies in the log, how it fares. Times in ms."""
        return [_told(lane) for lane in self._lanes.values()]

    def peer(self, server: str) -> dict[str, Any] | None:
        """The same of one destination, with the messages to devices counted; None for a server never sent to."""
        lane = self._lanes.get(server)
        if lane is None:
            return None
        with self._stream.snapshot() as snapshot:
            messages = len(rows.messages(snapshot, server, MOST_COUNTED))
            shared = sum(1 for _ in rows.rooms_of(snapshot, server))
        return {**_told(lane), "to_device_messages": messages, "rooms": shared}

    def forget_room(self, room_id: str) -> None:
        """A room is gone from this server: should it come back, it is shared anew."""
        for lane in self._lanes.values():
            lane.rooms.discard(room_id)

    def owes(self, room_nid: int) -> bool:
        """Whether events of a room wait for a destination that is not failing."""
        prefix = u64(room_nid)
        return any(
            due.ref.startswith(prefix)
            for lane in self._lanes.values()
            if not lane.destination.failures
            for due in lane.events
        )

    def stats(self) -> dict[str, int]:
        """Numbers for the metrics: counters since the start, and gauges."""
        lanes = self._lanes.values()
        return {
            **self._dispatch.counts,
            "destinations": len(self._lanes),
            "destinations_failing": sum(lane.destination.failures > 0 for lane in lanes),
            "destinations_dormant": sum(lane.destination.dormant for lane in lanes),
            "destinations_behind": sum(lane.destination.behind for lane in lanes),
            "items_waiting": sum(lane.waiting for lane in lanes),
        }


def _told(lane: Lane) -> dict[str, Any]:
    """A destination for the operator."""
    destination = lane.destination
    return {
        "server": destination.server,
        "state": "dormant" if destination.dormant else "failing" if destination.failures else "well",
        "pdus": len(lane.events),
        "edus": len(lane.devices) + len(lane.keyed),
        "to_device": bool(lane.messages),
        "behind": destination.behind,
        "failures": destination.failures,
        "failing_since": destination.failing_since,
        "retry_at": destination.retry_at if destination.failures else 0,
        "last_success": destination.last_success,
        "last_failure": destination.last_failure,
        "reason": destination.reason,
    }
