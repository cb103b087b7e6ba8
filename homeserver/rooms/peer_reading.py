"""Reading rooms on behalf of other servers: events, states, auth chains, history.

Server-Server API, "Retrieving events", "Backfilling and retrieving missing events". A server that is not in a room gets
nothing of it, with the same refusal for rooms that do not exist; one that is gets what history visibility lets it have.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heappop, heappush
from itertools import islice
from operator import itemgetter
from typing import Any

from orjson import Fragment
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.room_versions import RoomVersion, room_version
from homeserver.rooms.peer_sight import PeerSight
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.servers import Servers
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.events import EventRecord
from storage.log.state_map import StateMap
from storage.log.view import Snapshot

MAX_BACKFILL = 100
MAX_MISSING = 20
MAX_WALK = 2000
"""Events that one request walks over."""
MAX_SCAN = 2000
MAX_EDGES = 100_000
PART = 500
"""Events of a state or an auth chain that are read in one turn of the reactor, about four milliseconds."""


class PeerReading:
    """Reads for other servers. What may be long, states and auth chains, is read a part at a time: events do not change."""

    def __init__(
        self, rooms: Rooms, servers: Servers, sight: PeerSight, now_ms: Callable[[], int], clock: IReactorTime
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._sight = sight
        self._now_ms = now_ms
        self._clock: Any = clock
        self._edges: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def _room(self, origin: str, room_id: str) -> Room:
        """The room for a server that is in it. MatrixError 403 otherwise."""
        room = self._rooms.find(room_id)
        if room is None or not room.meta.last_seq or not self._servers.is_in(origin, room):
            raise MatrixError(403, "M_FORBIDDEN", "The asking server is not in that room")
        if not self._servers.allowed(origin, room):
            raise MatrixError(403, "M_FORBIDDEN", "The room does not let that server take part")
        return room

    def _record(self, view: Snapshot, room: Room, event_id: str) -> EventRecord:
        """An event that has its place in the room. MatrixError 404, the same for one of another room."""
        record = event_log.event_by_id(view, event_id)
        if record is None or record.room_nid != room.meta.nid or record.seq is None:
            raise MatrixError(404, "M_NOT_FOUND", "Event not found")
        return record

    def _whole(self, room: Room, record: EventRecord) -> EventRecord:
        if room.meta.partial_state:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not know the whole state yet")
        return record

    # -- single events -----------------------------------------------------------------------------------------------

    def event(self, origin: str, event_id: str) -> dict[str, Any]:
        """GET event: one event in a transaction. MatrixError 404 for what the server may not see or nobody knows."""
        with self._rooms.log.snapshot() as view:
            record = event_log.event_by_id(view, event_id)
            room_id = None if record is None else room_log.room_of_nid(view, record.room_nid)
            room = None if room_id is None else self._rooms.find(room_id)
            if record is None or room is None or record.rejected or not self._may_fetch(view, origin, room, record):
                raise MatrixError(404, "M_NOT_FOUND", "Event not found")
            if record.seq is None:
                pdu = bytes(record.pdu)
            else:
                pdu = self._sight.pdu(view, origin, record, room.version)
        return self._transaction([pdu])

    def _may_fetch(self, view: Snapshot, origin: str, room: Room, record: EventRecord) -> bool:
        if not self._servers.allowed(origin, room):
            return False
        if self._servers.is_in(origin, room):
            return True
        if record.seq is None:
            return False
        return self._sight.was_in(view, origin, room.meta.nid, record.state_after, ("join",))

    async def event_auth(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """GET event_auth: the auth chain of an event."""
        room = self._room(origin, room_id)
        with self._rooms.log.snapshot() as view:
            record = event_log.event_by_id(view, event_id)
            if record is None or record.room_nid != room.meta.nid:
                raise MatrixError(404, "M_NOT_FOUND", "Event not found")
        return {"auth_chain": _pdus(await self._stored(await self._auth_chain(room.version, [event_id])))}

    # -- states --------------------------------------------------------------------------------------------------------

    async def state(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """GET state: the state before an event as whole events, with its auth chain."""
        room = self._room(origin, room_id)
        ids = self._state_before(room, event_id)
        chain = await self._stored(await self._auth_chain(room.version, ids))
        return {"pdus": await self._whole_state(ids), "auth_chain": _pdus(chain)}

    async def state_ids(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """GET state_ids: the same as ids."""
        room = self._room(origin, room_id)
        ids = self._state_before(room, event_id)
        return {"pdu_ids": ids, "auth_chain_ids": await self._auth_chain(room.version, ids)}

    def _state_before(self, room: Room, event_id: str) -> list[str]:
        with self._rooms.log.snapshot() as view:
            root = self._whole(room, self._record(view, room, event_id)).state_before
            return [event_id for _, event_id in StateMap(view, room.meta.nid).items(root)] if root else []

    async def _auth_chain(self, version: RoomVersion, event_ids: Iterable[str]) -> list[str]:
        """Ids of all that some events cite, directly or through others; without the events themselves unless cited."""
        seen: dict[str, None] = {}
        stack = list(event_ids)
        walked = set(stack)
        while stack:
            with self._rooms.log.snapshot() as view:
                for _ in range(min(PART, len(stack))):
                    for cited in self._cited(view, version, stack.pop()):
                        if cited not in seen:
                            seen[cited] = None
                            if cited not in walked:
                                walked.add(cited)
                                stack.append(cited)
            if stack:
                await deferLater(self._clock, 0)
        return list(seen)

    async def _stored(self, event_ids: Collection[str]) -> list[tuple[int, bytes]]:
        """Depth and PDU of those events that are stored."""
        left = iter(event_ids)
        stored: list[tuple[int, bytes]] = []
        for start in range(0, len(event_ids), PART):
            if start:
                await deferLater(self._clock, 0)
            with self._rooms.log.snapshot() as view:
                records = (event_log.event_by_id(view, event_id) for event_id in islice(left, PART))
                stored += ((record.depth, bytes(record.pdu)) for record in records if record is not None)
        return stored

    async def _whole_state(self, event_ids: Collection[str]) -> list[Fragment]:
        """The events of a state. MatrixError 404 when the room goes away meanwhile: with one less it were another state."""
        stored = await self._stored(event_ids)
        if len(stored) < len(event_ids):
            raise MatrixError(404, "M_NOT_FOUND", "The room is being deleted")
        return _pdus(stored)

    def _cited(self, view: Snapshot, version: RoomVersion, event_id: str) -> tuple[str, ...]:
        edges = self._edges.get(event_id)
        if edges is None:
            record = event_log.event_by_id(view, event_id)
            if record is None:
                return ()
            edges = Event.from_json(record.pdu, version, event_id=event_id).auth_event_ids
            self._edges[event_id] = edges
            if len(self._edges) > MAX_EDGES:
                self._edges.popitem(last=False)
        return edges

    async def entry(self, room: Room, root: bytes, event: Event, omit_members: bool) -> dict[str, Any]:
        """State and auth chain for who has just come in through ``event``, before which the state was ``root``.

        Server-Server API, send_join. With ``omit_members`` only those members are told that a room without a name is
        shown by.
        """
        with self._rooms.log.snapshot() as view:
            states = StateMap(view, room.meta.nid)
            told: dict[str, None] = {}
            if omit_members:
                heroes = self._heroes(view, states, root, str(event.state_key))
                for (type_, user_id), event_id in states.items(root):
                    if type_ != "m.room.member" or user_id in heroes:
                        told[event_id] = None
            else:
                told = dict.fromkeys(event_id for _, event_id in states.items(root))
        chain = await self._auth_chain(room.version, [*told, event.event_id])
        if omit_members:
            chain = [event_id for event_id in chain if event_id not in told]
        cited = await self._stored(chain)
        cited.sort(key=itemgetter(0))  # so that each comes behind what it cites
        return {"state": await self._whole_state(told), "auth_chain": _pdus(cited), "members_omitted": omit_members}

    def _heroes(self, view: Snapshot, states: StateMap, root: bytes, but: str) -> set[str]:
        """Up to five members whose names stand for the room's (Client-Server API, room summaries)."""
        if states.get(root, "m.room.name") or states.get(root, "m.room.canonical_alias"):
            return set()
        found: dict[str, list[tuple[int, str]]] = {"join": [], "invite": [], "leave": [], "ban": []}
        for (_, user_id), event_id in states.items(root, "m.room.member"):
            record = event_log.event_by_id(view, event_id)
            if record is None or user_id == but:
                continue
            membership = room_log.membership_in(view, user_id, record.room_id)
            if membership is not None and membership.membership in found:
                found[membership.membership].append((record.seq or 0, user_id))
        active = sorted(found["join"]) + sorted(found["invite"])
        gone = sorted(found["leave"]) + sorted(found["ban"])
        return {user_id for _, user_id in (active or gone)[:5]}

    # -- history -------------------------------------------------------------------------------------------------------

    def backfill(self, origin: str, room_id: str, event_ids: Sequence[str], limit: int) -> dict[str, Any]:
        """GET backfill: the given events and what is before them, newest first."""
        room = self._room(origin, room_id)
        with self._rooms.log.snapshot() as view:
            records = self._walk(view, room, event_ids, set(), 0, min(limit, MAX_BACKFILL))
            return self._transaction([self._sight.pdu(view, origin, record, room.version) for record in records])

    def missing_events(
        self,
        origin: str,
        room_id: str,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> dict[str, Any]:
        """POST get_missing_events: what is between the earliest and the latest, both excluded, oldest first."""
        room = self._room(origin, room_id)
        with self._rooms.log.snapshot() as view:
            starts: list[str] = []
            for event_id in latest:
                record = event_log.event_by_id(view, event_id)
                if record is not None and record.room_nid == room.meta.nid and record.seq is not None:
                    starts += self._before(room, record)
            stop = {*earliest, *latest}
            records = self._walk(view, room, starts, stop, min_depth, min(limit, MAX_MISSING))
            pdus = [self._sight.pdu(view, origin, record, room.version) for record in reversed(records)]
        return {"events": [Fragment(pdu) for pdu in pdus]}

    def _before(self, room: Room, record: EventRecord) -> tuple[str, ...]:
        return Event.from_json(record.pdu, room.version, event_id=record.event_id).prev_event_ids

    def _walk(
        self, view: Snapshot, room: Room, starts: Iterable[str], stop: set[str], min_depth: int, limit: int
    ) -> list[EventRecord]:
        """Up to ``limit`` placed events of the room from some events backwards, the deepest first."""
        heap: list[tuple[int, str]] = []
        seen = set(stop)
        found: list[EventRecord] = []
        waiting = list(dict.fromkeys(starts))
        for _ in range(MAX_WALK):
            for event_id in waiting:
                record = None if event_id in seen else event_log.event_by_id(view, event_id)
                seen.add(event_id)
                if record is not None and record.room_nid == room.meta.nid and record.seq is not None:
                    heappush(heap, (-record.depth, event_id))
            if not heap or len(found) >= limit:
                break
            _, event_id = heappop(heap)
            record = event_log.event_by_id(view, event_id)
            assert record is not None, "it was read in this snapshot"
            if record.depth < min_depth:
                break
            found.append(record)
            waiting = list(self._before(room, record))
        return found

    def nearest(self, origin: str, room_id: str, ts: int, forward: bool) -> dict[str, Any]:
        """GET timestamp_to_event: the event closest to a time in one direction. MatrixError 404 if there is none."""
        room = self._room(origin, room_id)
        with self._rooms.log.snapshot() as view:
            for count, (_, seq) in enumerate(event_log.event_near(view, room.meta.nid, ts, forward=forward)):
                if count >= MAX_SCAN:
                    break
                record = event_log.event_at(view, room.meta.nid, seq)
                if record is None or record.soft_failed or record.rejected:
                    continue
                if self._sight.may_see(view, origin, record):
                    return {"event_id": record.event_id, "origin_server_ts": record.origin_server_ts}
        raise MatrixError(404, "M_NOT_FOUND", "There is no event in that direction")

    def _transaction(self, pdus: Iterable[bytes]) -> dict[str, Any]:
        return {
            "origin": self._rooms.server_name,
            "origin_server_ts": self._now_ms(),
            "pdus": [Fragment(pdu) for pdu in pdus],
        }


def _pdus(stored: Iterable[tuple[int, bytes]]) -> list[Fragment]:
    return [Fragment(pdu) for _, pdu in stored]


def known_version(version_id: str) -> RoomVersion:
    """The switches of a room version. MatrixError 400 M_INCOMPATIBLE_ROOM_VERSION for one that we lack."""
    try:
        return room_version(version_id)
    except MatrixError:
        raise MatrixError(
            400, "M_INCOMPATIBLE_ROOM_VERSION", "This server does not know that room version", room_version=version_id
        ) from None
