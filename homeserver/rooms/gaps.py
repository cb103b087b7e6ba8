"""Filling the gap before an event whose predecessors are not here: the events between, or else the state behind them.

Server-Server API, "Backfilling and retrieving missing events" and "Retrieving the state of a room". Whoever sends events
with ancestors that nobody knows costs one bounded fetch for a room at a time, and after a fetch that led nowhere the
room rests for a while.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.signing import KeyUnavailable
from homeserver.rooms.checking import Checking, in_order
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.peers import Peers
from homeserver.rooms.place import MissingPredecessors, Place
from homeserver.rooms.policy import PolicyServers
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.told import ToldStates
from storage.log import events as event_log

MISSING_LIMIT = 20
"""Events asked for at once with get_missing_events."""
MAX_STATES = 5
"""States fetched to place one event; each is the state before one missing predecessor."""
MAX_SINGLE = 10
"""Up to so many unknown events of a state are fetched one by one, more of them as a whole state."""
MAX_PAST = 500
"""Events looked at to tell what lies behind the oldest that the room has."""
MAX_STATE = 200_000
MAX_CHAIN = 50_000
FREE_FAILURES = 1
"""Fetches that may lead nowhere before the room rests: one event that cannot be had is no flood."""
REST_SECONDS = 30.0
MAX_REST_SECONDS = 600.0
MAX_RESTING = 10_000


class Gaps:
    """Fetches what is missing before an event. One room is worked on by one caller at a time (see `Receive`)."""

    def __init__(
        self,
        rooms: Rooms,
        place: Place,
        checking: Checking,
        outliers: Outliers,
        told: ToldStates,
        peers: Peers,
        policies: PolicyServers,
        clock: IReactorTime,
    ) -> None:
        self._rooms = rooms
        self._place = place
        self._checking = checking
        self._outliers = outliers
        self._told = told
        self._peers = peers
        self._policies = policies
        self._clock = clock
        self._resting: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    async def fill(self, origin: str, room_id: str, event: Event) -> dict[str, bytes]:
        """Fetch what `event` needs to be placed; the states after those predecessors that stay unknown.

        MatrixError when it cannot be had, or when this origin's last attempts in this room failed a moment ago.
        """
        rest = self._resting.get((origin, room_id))
        if rest is not None and self._clock.seconds() < rest[0]:
            raise MatrixError(404, "M_NOT_FOUND", "The events before this one are not known")
        try:
            states = await self._fill(origin, room_id, event)
        except MatrixError:
            self._rest(origin, room_id)
            raise
        self._resting.pop((origin, room_id), None)
        return states

    def _rest(self, origin: str, room_id: str) -> None:
        key = (origin, room_id)
        _, failures = self._resting.get(key, (0, 0))
        over = failures - FREE_FAILURES
        length = 0.0 if over < 0 else min(REST_SECONDS * 2 ** min(over, 10), MAX_REST_SECONDS)
        self._resting[key] = (self._clock.seconds() + length, failures + 1)
        self._resting.move_to_end(key)
        if len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)

    async def _fill(self, origin: str, room_id: str, event: Event) -> dict[str, bytes]:
        before, _ = self._place.missing(event)
        if not before:
            await self._fetch_auth(origin, room_id, event)
            return {}
        room = self._rooms.get(room_id)
        heads = [event_id for event_id, _ in room.meta.extremities][:MISSING_LIMIT]
        pdus = await self._peers.missing_events(origin, room_id, heads, [event.event_id], MISSING_LIMIT, 0)
        pdus = pdus[:MISSING_LIMIT]
        fetched = await self._checking.events(pdus, room.version, room_id)
        if len(fetched) < len(pdus):
            # What is past and what is between shows only in a chain that has no hole.
            await self._wait_for_keys(pdus, room)
        fetched.pop(event.event_id, None)
        budget = [MAX_STATES]
        past = self._past(room.meta.backward_extremities, fetched)
        between = [one for event_id, one in fetched.items() if event_id not in past]
        for earlier in in_order(between, by_predecessors=True):
            try:
                states = await self._fetch_states(origin, room_id, earlier, budget)
                earlier = await self._policies.received(room_id, earlier)
                self._place.place(self._rooms.get(room_id), earlier, states).durable.addErrback(_ignore)
            except MatrixError:
                continue
        missing = [event_id for event_id in self._place.missing(event)[0] if event_id not in past]
        if before := [event_id for event_id in missing if not self._place.is_here(room_id, event_id)]:
            # Whoever sends an event has what is right before it. Taking a state for it instead would let them choose one.
            raise MissingPredecessors(before)
        return await self._fetch_states(origin, room_id, event, budget)

    def _past(self, backward: list[str], fetched: Mapping[str, Event]) -> set[str]:
        """Events that lie behind the oldest that the room has, such as from before this server came in.

        They are for backfill. Placed among the newest they would be heads, and the room's state then a quarrel with its past.
        """
        past: set[str] = set()
        walk = list(backward)
        for _ in range(MAX_PAST):
            if not walk:
                break
            event_id = walk.pop()
            event = fetched.get(event_id) or self._rooms.event(event_id)
            if event is not None:
                missing = [id_ for id_ in self._place.missing(event)[0] if id_ not in past]
                past.update(missing)
                walk += missing
        return past

    async def _fetch_auth(self, origin: str, room_id: str, event: Event) -> None:
        """The events that an event cites, with all that these cite. MatrixError when they cannot be had."""
        pdus = await self._peers.event_auth(origin, room_id, event.event_id)
        room = self._rooms.get(room_id)
        found = await self._checking.events(pdus[:MAX_CHAIN], room.version, room_id)
        found.pop(event.event_id, None)
        await self._outliers.keep(room, found)
        if self._place.missing(event)[1]:
            raise MatrixError(403, "M_FORBIDDEN", "The event cites auth events that cannot be had")

    async def _fetch_states(self, origin: str, room_id: str, event: Event, budget: list[int]) -> dict[str, bytes]:
        """The states after the predecessors of an event that are not here."""
        before, cited = self._place.missing(event)
        states: dict[str, bytes] = {}
        for event_id in before:
            if budget[0] <= 0:
                raise MatrixError(404, "M_NOT_FOUND", "Too many events before this one are not known")
            budget[0] -= 1
            states[event_id] = await self.state_after(origin, room_id, event_id)
        if cited and self._place.missing(event)[1]:
            await self._fetch_auth(origin, room_id, event)
        return states

    async def state_after(self, origin: str, room_id: str, event_id: str) -> bytes:
        """Root of the state after an event that is not here, as far as what a peer tells of it stands the checks.

        The event is judged by what it cites, as those of the state are: against that state it proves nothing more,
        since who tells the state could have put the event there.
        """
        root = await self.state_before(origin, room_id, event_id)
        room = self._rooms.get(room_id)
        pdu = await self._peers.event(origin, event_id)
        event = await self._checking.event(pdu, room.version, room_id)
        if event.event_id != event_id:
            raise MatrixError(502, "M_UNKNOWN", "Another event was sent than asked for")
        await self._outliers.keep(self._rooms.get(room_id), {event_id: event})
        room = self._rooms.get(room_id)
        if event.state_key is None or self._outliers.is_rejected(event_id):
            return root
        if event_log.place_of(self._rooms.log, event_id) is None:
            return root  # what it cites is unknown
        batch = self._rooms.log.begin()
        after = room.change_state(batch, root, {(event.type, event.state_key): event_id})
        self._rooms.log.append(batch).addErrback(_ignore)
        return after

    async def state_before(self, origin: str, room_id: str, event_id: str) -> bytes:
        """Root of the state before an event, as a peer tells it.

        MatrixError when it cannot be had whole for the moment: with one event less it would be another state.
        """
        told = await self._peers.state_ids(origin, room_id, event_id)
        ids = [id_ for id_ in (*told.auth_chain[:MAX_CHAIN], *told.state[:MAX_STATE]) if isinstance(id_, str)]
        unknown = list(dict.fromkeys(id_ for id_ in ids if event_log.place_of(self._rooms.log, id_) is None))
        room = self._rooms.get(room_id)
        if len(unknown) <= MAX_SINGLE:
            pdus = {}
            for id_ in unknown:
                try:
                    pdus[id_] = await self._peers.event(origin, id_)
                except MatrixError as problem:
                    if problem.status >= 500 or problem.status == 429:
                        raise
                    continue  # not even who tells the state has it
            found = await self._checking.events(list(pdus.values()), room.version, room_id)
            await self._outliers.keep(self._rooms.get(room_id), found)
            await self._wait_for_keys([pdu for id_, pdu in pdus.items() if id_ not in found], room)
        else:
            whole = await self._peers.state(origin, room_id, event_id)
            await self._told.take(room, whole.state[:MAX_STATE], whole.auth_chain[:MAX_CHAIN])
        state_ids = [id_ for id_ in told.state[:MAX_STATE] if isinstance(id_, str)]
        root = await self._outliers.state_of(self._rooms.get(room_id), state_ids)
        if not root:
            raise MatrixError(502, "M_UNKNOWN", "No usable state was sent")
        return root

    async def _wait_for_keys(self, pdus: Sequence[Any], room: Room) -> None:
        """MatrixError 503 if one of these events is refused only because its server's key cannot be had for the moment."""
        for pdu in pdus:
            try:
                await self._checking.event(pdu, room.version, room.room_id)
            except KeyUnavailable as problem:
                raise MatrixError(503, "M_UNKNOWN", problem.error) from None
            except MatrixError:
                continue


def _ignore(failure: object) -> None:
    """The log has failed: it says so itself, and the server stops."""
