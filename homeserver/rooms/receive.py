"""Receiving events from other servers: the checks in their order, one room at a time.

Server-Server API, "PDUs". Step by step:

1. format and size, 2. signatures, 3. content hash (`checking`);
   then whatever is missing before the event is fetched (`gaps`);
   and its policy server's signature, where the room has one and the event lacks it (`policy`);
4. its auth events, 5. the state before it, 6. the current state, 7. that signature, and its place in the room (`place`).

Steps 1 to 3 and the fetching take time; the rest is one turn. Events of one room go one after the other, rooms do not wait
for each other.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.hashes import event_id as id_of_pdu
from federation.rules.signing import KeyUnavailable
from homeserver.rooms.checking import Checking
from homeserver.rooms.extremities import Extremities
from homeserver.rooms.gaps import Gaps
from homeserver.rooms.place import Place, Placed, Verdict
from homeserver.rooms.policy import PolicyServers
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.servers import Servers
from homeserver.rooms.turns import Turns
from homeserver.rooms.untaken import Untaken

_report = Logger()


class Receive:
    """Takes events of other servers in."""

    def __init__(
        self,
        rooms: Rooms,
        servers: Servers,
        checking: Checking,
        place: Place,
        gaps: Gaps,
        extremities: Extremities,
        policies: PolicyServers,
        clock: IReactorTime,
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._checking = checking
        self._place = place
        self._gaps = gaps
        self._extremities = extremities
        self._policies = policies
        self._turns = Turns()
        self.untaken = Untaken(clock, self.pdus)
        self.outside: Callable[[str, str, Any], Awaitable[None]] | None = None
        """Told of events (origin, room id, PDU) of rooms that nobody of this server is in: they may take an invite back."""

    async def pdus(self, origin: str, room_id: str, pdus: Sequence[Any]) -> dict[str, str | None]:
        """Events of one room, in the order in which they were sent: for each its id and what was wrong, None if nothing.

        They are submitted when it returns, and so durable before whatever is submitted later. Events of unknown rooms have
        no ids and are left out.
        """
        room = self._rooms.find(room_id)
        if room is None or not room.meta.last_seq or not self._servers.is_in(self._rooms.server_name, room):
            await self._from_outside(origin, room_id, pdus)
            return {}
        if not self._servers.allowed(origin, room):
            return dict.fromkeys(self._ids(room, pdus), "The room does not let this server take part")
        return await self.in_turn(room_id, lambda: self._all(origin, room_id, pdus))

    async def _from_outside(self, origin: str, room_id: str, pdus: Sequence[Any]) -> None:
        for pdu in pdus if self.outside is not None else ():
            try:
                assert self.outside is not None
                await self.outside(origin, room_id, pdu)
            except MatrixError:
                continue

    async def in_turn(self, room_id: str, work: Callable[[], Any]) -> Any:
        """Do `work` (a coroutine function) while nobody else receives events in the room. MatrixError 429 when too many wait."""
        return await self._turns.take(room_id, work)

    def _ids(self, room: Room, pdus: Sequence[Any]) -> list[str]:
        ids = []
        for pdu in pdus:
            try:
                ids.append(id_of_pdu(pdu, room.version))
            except (MatrixError, KeyError, TypeError, AttributeError, ValueError):
                continue
        return ids

    async def _all(self, origin: str, room_id: str, pdus: Sequence[Any]) -> dict[str, str | None]:
        results: dict[str, str | None] = {}
        way = True
        for pdu in pdus:
            room = self._rooms.get(room_id)
            try:
                event = await self._checking.event(pdu, room.version, room_id)
                placed = await self._placed(origin, room_id, event, pdu)
                placed.durable.addErrback(_ignore)
                way = way and await self._extremities.make_way(room_id)
                # A rejected event is dealt with and kept as rejected: to its sender nothing went wrong.
                results[event.event_id] = None
                if placed.verdict is Verdict.REJECTED:
                    _report.info("{event} in {room} is rejected: {why}", event=event.event_id, room=room_id, why=placed.why)
            except MatrixError as error:
                for event_id in self._ids(room, [pdu]):
                    results[event_id] = error.error
                    if isinstance(error, KeyUnavailable):
                        self.untaken.keep(origin, room_id, event_id, pdu)
            except Exception:
                _report.failure("an event of {origin} in {room} could not be taken in", origin=origin, room=room_id)
                for event_id in self._ids(room, [pdu]):
                    results[event_id] = "Internal server error"
        await self._extremities.tidy(room_id)
        return results

    async def _placed(self, origin: str, room_id: str, event: Event, pdu: Any) -> Placed:
        try:
            placed = await self.checked(origin, room_id, event)
        except MatrixError:
            self.untaken.keep(origin, room_id, event.event_id, pdu)
            raise
        self.untaken.placed(origin, room_id, event.event_id)
        return placed

    async def checked(self, origin: str, room_id: str, event: Event, *, relayed: bool = False) -> Placed:
        """Place an event whose format, signatures and hash are right, once what it needs is here. Call `in_turn`."""
        states: dict[str, bytes] = {}
        before, cited = self._place.missing(event)
        if before or cited:
            states = await self._gaps.fill(origin, room_id, event)
        event = await self._policies.received(room_id, event)
        return self._place.place(self._rooms.get(room_id), event, states, relayed=relayed)


def _ignore(failure: object) -> None:
    """The log has failed: it says so itself, and the server stops."""
