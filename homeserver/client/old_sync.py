"""The calls that ``/sync`` has replaced: /initialSync, /events and /events/{eventId} (old_sync.yaml)."""

from typing import Any

import orjson
from twisted.internet.interfaces import IReactorTime

from federation.rules.errors import MatrixError
from homeserver.client.open_polls import OpenPolls
from homeserver.client.peeking_events import (
    DEFAULT_TIMEOUT_MS,
    MAX_EVENTS,
    MAX_TIMEOUT_MS,
    PeekingEvents,
    events_body,
    position_of,
)
from homeserver.client.room_initial_sync import MAX_LIMIT
from homeserver.feed import Feed
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.read import Reader, Reading
from homeserver.sync import tokens
from homeserver.sync.room_info import RoomInfos
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route
from storage.log import events as event_log
from storage.log.append import Entry, Kind
from storage.log.keys import from_seq_key
from storage.log.read import entries
from storage.log.rooms import room_of_nid
from storage.log.view import Snapshot

DEFAULT_LIMIT = 10
MAX_SCAN = 5_000
"""Log entries that one turn looks at; the client goes on from there."""


class OldSync:
    """For clients that have never learned ``/sync``. ``/events`` tells of room events alone."""

    def __init__(
        self,
        reading: Reading,
        memberships: Memberships,
        infos: RoomInfos,
        peeking: PeekingEvents,
        feed: Feed,
        polls: OpenPolls,
        clock: IReactorTime,
    ) -> None:
        self._reading = reading
        self._memberships = memberships
        self._infos = infos
        self._peeking = peeking
        self._feed = feed
        self._polls = polls
        self._clock = clock

    def routes(self) -> list[Route]:
        """The operations of this module and of ``peeking_events``."""
        return [
            Route("GET", "/_matrix/client/v3/initialSync", self.get_initial_sync),
            Route("GET", "/_matrix/client/v3/events", self.get_events, Auth.GUEST),
            Route("GET", "/_matrix/client/v3/events/{eventId}", self.get_event, Auth.GUEST),
        ]

    def get_initial_sync(self, call: Call) -> dict[str, Any]:
        """All rooms of the caller, with the token from which ``/events`` goes on."""
        limit = call.query_int("limit", DEFAULT_LIMIT, 0, MAX_LIMIT)
        archived = call.query_bool("archived")
        requester, log = call.requester, self._reading.log
        rooms = []
        seen: set[str] = {requester.user_id}
        with log.snapshot() as snapshot:
            for room_id, record in self._memberships.rooms_of(requester.user_id).items():
                if record.membership in ("invite", "knock"):
                    rooms.append(self._infos.invited(snapshot, requester, record))
                elif record.membership == "join" or archived:
                    try:
                        info = self._infos.room(snapshot, requester, room_id, limit)
                    except MatrixError:
                        continue  # a ban from a room that the caller was never in shows nothing
                    seen.update(event["sender"] for event in info.pop("presence"))
                    rooms.append(info)
            account_data = self._infos.account_data(snapshot, requester.user_id, "")
        return {
            "end": tokens.sync_token(log.epoch, log.position),
            "presence": self._infos.presence(sorted(seen)),
            "rooms": rooms,
            "account_data": account_data,
        }

    async def get_events(self, call: Call) -> dict[str, Any]:
        """New events of the caller's rooms, or of one room that the caller looks into; waits for one."""
        room_id = call.query("room_id")
        if room_id is not None:
            return await self._peeking.peek(call, room_id)
        requester, log = call.requester, self._reading.log
        if requester.is_guest:
            raise MatrixError(400, "M_MISSING_PARAM", "Guests have to name a room in room_id")
        start = position_of(call.query("from"), log.epoch, log.position)
        timeout = call.query_int("timeout", DEFAULT_TIMEOUT_MS, 0, MAX_TIMEOUT_MS)
        deadline = self._clock.seconds() + timeout / 1000
        chunk, end = self._events(call, start)
        poll = self._polls.open(call)
        try:
            while not chunk and (remaining := deadline - self._clock.seconds()) > 0:
                if not await poll.wait(
                    self._feed.wait(requester.user_id, requester.device_id, end, remaining)
                ):
                    break
                chunk, end = self._events(call, end)
        finally:
            self._polls.close(call, poll)
        return events_body(log.epoch, start, end, chunk)

    def get_event(self, call: Call) -> dict[str, Any]:
        """One event by id, whichever room it is in; MatrixError 404 for what the caller may not see."""
        event_id = call.params["eventId"]
        with self._reading.log.snapshot() as snapshot:
            place = event_log.place_of(snapshot, event_id)
            room_id = None if place is None else room_of_nid(snapshot, place[0])
            if room_id is None:
                raise MatrixError(404, "M_NOT_FOUND", "Event not found")
            try:
                reader = self._reading.open(snapshot, call.requester, room_id)
            except MatrixError:
                raise MatrixError(404, "M_NOT_FOUND", "Event not found") from None
            record = self._reading.event(reader, event_id)
            return orjson.Fragment(reader.render(record))  # type: ignore[return-value]

    def _events(self, call: Call, after: int) -> tuple[list[orjson.Fragment], int]:
        """Events for the caller after a position, and the position up to which that is all."""
        log = self._reading.log
        found: list[orjson.Fragment] = []
        readers: dict[str, Reader | None] = {}
        end = log.position
        with log.snapshot() as snapshot:
            for scanned, entry in enumerate(entries(snapshot, after, log.position, MAX_SCAN), 1):
                if entry.kind == Kind.EVENT:
                    event = self._event(snapshot, call, entry, readers)
                    if event is not None:
                        found.append(event)
                if len(found) == MAX_EVENTS or scanned == MAX_SCAN:
                    end = entry.position
                    break
        return found, end

    def _event(
        self, snapshot: Snapshot, call: Call, entry: Entry, readers: dict[str, Reader | None]
    ) -> orjson.Fragment | None:
        requester, room_id = call.requester, entry.room_id
        record = self._memberships.membership(requester.user_id, room_id)
        if record is None or (record.membership != "join" and entry.position > record.position):
            return None
        event = event_log.event_at(snapshot, *from_seq_key(entry.ref))
        if event is None:
            return None
        if room_id not in readers:
            try:
                readers[room_id] = self._reading.open(snapshot, requester, room_id)
            except MatrixError:
                readers[room_id] = None
        reader = readers[room_id]
        if reader is not None and reader.sees(event):
            return orjson.Fragment(reader.render(event))
        if event.event_id == record.event_id:  # an invitation is for the eyes of its target
            return orjson.Fragment(event.client_json(True))
        return None
