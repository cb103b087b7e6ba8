"""One step of one lane: make a transaction or take the one that is still to be accepted, send it, judge the answer."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.logger import Logger

from federation.outbound.destination import MAX_EDUS, Remedy
from federation.outbound.device_streams import stream_id, stream_ids, unknown_before
from federation.outbound.lane import DeviceChange, Flight, Lane, edu, edu_of_bytes, take_latest, transaction
from federation.outbound.ports import DeviceUpdates, TransactionSender
from federation.wire.errors import PeerUnreachable, RequestRefused
from storage.log import destinations as rows
from storage.log import events as event_log
from storage.log.append import Batch, Log
from storage.log.keys import from_seq_key

DEVICE_LIST_UPDATE = "m.device_list_update"

_log = Logger()


class Dispatch:
    """Makes and sends transactions. The caller sees to it that a lane has one step at a time."""

    def __init__(
        self,
        server_name: str,
        log: Log,
        sender: TransactionSender,
        devices: DeviceUpdates,
        wall_ms: Callable[[], int],
        now_ms: Callable[[], int],
        dice: Callable[[], float],
    ) -> None:
        """``wall_ms`` is what transactions are dated by, ``now_ms`` what waits are measured by: nobody sets it back."""
        self._server_name = server_name
        self._stream = log
        self._sender = sender
        self._devices = devices
        self._wall_ms = wall_ms
        self._now_ms = now_ms
        self._dice = dice
        self._txn_id = 0
        self.counts = {"transactions": 0, "failures": 0, "pdus": 0, "edus": 0, "set_aside": 0}

    async def step(self, lane: Lane) -> None:
        """Send one transaction, or find that nothing is left to be sent."""
        destination = lane.destination
        probing = destination.probing
        flight = self._empty() if probing else lane.flight or await self._build(lane)
        if flight is None:
            return
        if not probing:
            lane.flight = flight
        destination.begin()
        try:
            answer = await self._sender.send_transaction(destination.server, flight.txn_id, flight.body)
        except PeerUnreachable as problem:
            destination.unreachable(self._now_ms(), self._dice(), str(problem))
            self._after_failure(lane)
        except RequestRefused as problem:
            await self._refused(lane, flight, problem)
        else:
            destination.accepted(self._now_ms())
            await self._accepted(lane, flight, probing, answer)
        finally:
            destination.in_flight = False

    async def _refused(self, lane: Lane, flight: Flight, problem: RequestRefused) -> None:
        destination = lane.destination
        remedy = destination.refused(
            self._now_ms(), self._dice(), str(problem), flight.items, getattr(problem, "retry_after_ms", None)
        )
        if remedy is Remedy.SET_ASIDE:
            self.counts["set_aside"] += 1
            _log.warn(
                "{server} takes transactions but not this one, left out: {why}", server=destination.server, why=problem
            )
            await self._landed(lane, flight)
        elif remedy is Remedy.RETRY:
            if flight.items > 1:
                lane.flight = None  # made again, smaller
            self._after_failure(lane)

    async def _accepted(self, lane: Lane, flight: Flight, probing: bool, answer: Any) -> None:
        self.counts["transactions"] += 1
        if probing:
            return
        lane.hello = False
        results = answer.get("pdus") if hasattr(answer, "get") else None
        for event_id, result in results.items() if isinstance(results, dict) else ():
            if isinstance(result, dict) and result.get("error"):
                _log.debug(
                    "{server} did not take {event}: {why}",
                    server=lane.destination.server,
                    event=event_id,
                    why=str(result["error"])[:200],
                )
        await self._landed(lane, flight)

    async def _landed(self, lane: Lane, flight: Flight) -> None:
        lane.landed(flight)
        destination = lane.destination
        if destination.behind and flight.events:
            destination.cursor = max(destination.cursor, flight.events)
        if flight.messages:
            batch = self._stream.begin()
            for position in flight.messages:
                rows.delete_message(batch, destination.server, position)
            # Before they are durably gone they would be read, and sent, once more.
            await self._stream.append(batch)

    def _after_failure(self, lane: Lane) -> None:
        self.counts["failures"] += 1
        destination = lane.destination
        if not destination.behind:
            first = lane.first_unsent()
            if first is not None:
                destination.cursor = first - 1
                destination.behind = True
        if destination.dormant:
            lane.let_go()
            lane.hello = False
        batch = self._stream.begin()
        self.write(batch, lane)
        self._submit(batch)

    def write(self, batch: Batch, lane: Lane) -> None:
        """Put the destination's row into a batch."""
        stored = lane.destination.stored()
        rows.put_destination(batch, stored.server, msgspec.msgpack.encode(stored))

    # -- making a transaction ----------------------------------------------------------------------------------------

    def _empty(self) -> Flight:
        return Flight(self._new_txn_id(), transaction(self._server_name, self._wall_ms(), (), []), 0, 0, (), 0)

    async def _build(self, lane: Lane) -> Flight | None:
        """The next transaction of a lane, None when there is nothing to send."""
        room = lane.destination.room
        pdus, last_event = self._events(lane, room)
        edu_room = MAX_EDUS if room > 1 else room - len(pdus)
        messages = self._messages(lane, edu_room)
        edus = [edu_of_bytes("m.direct_to_device", content) for _, content in messages]
        last_device = 0
        for change in list(lane.devices)[:edu_room]:
            updates = await self._device_edus(change)
            if len(edus) + len(updates) > edu_room and (edus or len(updates) > MAX_EDUS):
                break
            last_device = change.position
            edus.extend(updates[:MAX_EDUS])
            if len(edus) >= edu_room:
                break
        if len(edus) < edu_room:
            edus.extend(take_latest(lane, edu_room - len(edus)))
        if not pdus and not edus and not lane.hello:
            if last_event or last_device:
                lane.landed(Flight("", b"", last_event, last_device, (), 0))
            return None
        self.counts["pdus"] += len(pdus)
        self.counts["edus"] += len(edus)
        body = transaction(self._server_name, self._wall_ms(), pdus, edus)
        positions = tuple(position for position, _ in messages)
        return Flight(self._new_txn_id(), body, last_event, last_device, positions, len(pdus) + len(edus))

    def _events(self, lane: Lane, limit: int) -> tuple[list[bytes], int]:
        pdus: list[bytes] = []
        last = 0
        if lane.events:
            with self._stream.snapshot() as snapshot:
                for due, _ in zip(lane.events, range(limit), strict=False):
                    record = event_log.event_at(snapshot, *from_seq_key(due.ref))
                    last = due.position
                    if record is not None:
                        pdus.append(record.pdu)
        return pdus, last

    def _messages(self, lane: Lane, limit: int) -> list[tuple[int, bytes]]:
        if not lane.messages or limit < 1:
            return []
        with self._stream.snapshot() as snapshot:
            found = rows.messages(snapshot, lane.destination.server, limit + 1)
        if not found:
            lane.messages = 0
            return []
        lane.messages = found[0][0]
        return found[:limit]

    async def _device_edus(self, change: DeviceChange) -> list[bytes]:
        edus = []
        updates = await self._devices.updates(change.user_id, change.device_id)
        previous = [stream_id(change.previous)] if change.previous > 0 else []
        if change.previous < 0:
            # The destination will ask for the whole list: one update says that it has to.
            updates = updates[-1:]
            previous = [unknown_before(change.version)]
        numbers = iter(stream_ids(change.version, sum(type_ == DEVICE_LIST_UPDATE for type_, _ in updates)))
        for type_, content in updates:
            if type_ == DEVICE_LIST_UPDATE:
                number = next(numbers)
                content = {**content, "stream_id": number, "prev_id": previous}
                previous = [number]
            edus.append(edu(type_, content))
        return edus

    def _new_txn_id(self) -> str:
        """Digits alone (some servers take nothing else), never given twice, after a restart with a clock set back neither."""
        self._txn_id = max(self._txn_id + 1, self._now_ms() * 1000)
        return f"{self._txn_id}{int(self._dice() * 1_000_000):06}"

    def _submit(self, batch: Batch) -> None:
        self._stream.append(batch).addErrback(lambda failure: _log.warn("not written: {why}", why=failure.value))
