"""Policy servers of rooms: who has to recommend an event, and asking for it.

Server-Server API, "Policy Servers". What this server sends is recommended before anybody sees it, or it is not sent. What
other servers send without a recommendation is asked for; without one it is soft-failed (`homeserver.rooms.place`).
"""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import server_name_of
from federation.rules.policy import (
    POLICY,
    PolicyServer,
    is_exempt,
    is_recommended,
    policy_server_of,
    with_recommendation,
)
from homeserver.rooms.at_once import for_a_while
from homeserver.rooms.peers import Peers
from homeserver.rooms.place import Also, Place, Verdict
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.rooms.servers import Servers
from homeserver.rooms.turns import Turns
from storage.log import events as event_log

PATIENCE = 15.0
"""Seconds for which a policy server is waited for altogether, finding it included."""

_report = Logger()


class PolicyServers:
    """Which rooms use a policy server, and what it says of events."""

    def __init__(self, rooms: Rooms, servers: Servers, peers: Peers, clock: IReactorTime) -> None:
        self._rooms = rooms
        self._servers = servers
        self._peers = peers
        self._clock = clock

    def of(self, room: Room) -> PolicyServer | None:
        """The policy server that a room uses now: named by its state, and with somebody in the room."""
        event = room.state(*POLICY)
        server = None if event is None else policy_server_of(event.content)
        if server is None:
            return None
        told = room.meta.partial_state and server.server_name in self._servers.to_ask(room)
        return server if told or self._servers.is_in(server.server_name, room) else None

    def recommends(self, room: Room, event: Event) -> bool:
        """Whether an event may be shown, by what the room's policy server has signed so far."""
        server = self.of(room)
        return server is None or is_exempt(event) or is_recommended(event, server)

    async def sign(self, room: Room, event: Event) -> Event:
        """An event of ours with the recommendation that it needs; the same event where it needs none.

        Raises MatrixError with what the policy server said, 502 when it does not answer or has signed wrongly.
        """
        server = self.of(room)
        if server is None or is_exempt(event) or is_recommended(event, server):
            return event
        if server.server_name == self._rooms.server_name:
            raise MatrixError(404, "M_UNRECOGNIZED", "The room has this server for its policy server, which it is not")
        return await self._asked(server, event, although_silent=True)

    async def received(self, room_id: str, event: Event) -> Event:
        """An event of another server with its recommendation, if that can be had: see `recommends`.

        Not asked for what is in its place already.
        """
        room = self._rooms.get(room_id)
        server = self.of(room)
        if server is None or server.server_name == self._rooms.server_name or self.recommends(room, event):
            return event
        known = event_log.event_by_id(self._rooms.log, event.event_id)
        if known is not None and known.seq is not None:
            return event
        try:
            return await self._asked(server, event, although_silent=False)
        except MatrixError as error:
            _report.info(
                "{event} in {room} is not recommended: {why}", event=event.event_id, room=room_id, why=error.error
            )
            return event

    async def _asked(self, server: PolicyServer, event: Event, *, although_silent: bool) -> Event:
        asking = self._peers.policy_signatures(server.server_name, event.pdu, although_silent=although_silent)
        answer = await for_a_while(asking, PATIENCE, self._clock)
        if answer is None:
            raise MatrixError(502, "M_UNKNOWN", "The room's policy server takes too long")
        signed = with_recommendation(event, server, answer)
        if not is_recommended(signed, server):
            raise MatrixError(502, "M_UNKNOWN", "The room's policy server has not signed with the key that the room knows")
        return signed


class Policed:
    """Appends events of our users to rooms that use a policy server."""

    def __init__(self, rooms: Rooms, policies: PolicyServers, place: Place) -> None:
        self._rooms = rooms
        self._policies = policies
        self._place = place
        self.sign = policies.sign
        self.turns = Turns()

    def governs(self, room: Room, draft: Draft) -> bool:
        """Whether somebody has to be asked before this event is appended."""
        return (draft.type, draft.state_key) != POLICY and self._policies.of(room) is not None

    async def append(
        self, room: Room, draft: Draft, txn: tuple[str, str] | None = None, also: Also | None = None
    ) -> Event:
        """Decide, ask, and append what was signed; durable on return.

        The room may move on meanwhile: the draft is judged again then, and the event takes its place beside what came.
        """
        event = await self._policies.sign(room, room.decide(draft))
        room = self._rooms.get(room.room_id)
        if tuple(event_id for event_id, _ in room.meta.extremities) != event.prev_event_ids:
            room.decide(draft)
        relayed = server_name_of(draft.sender) != self._rooms.server_name
        placed = self._place.place(room, event, relayed=relayed, txn=txn, also=also)
        await placed.durable
        if placed.verdict not in (Verdict.ACCEPTED, Verdict.KNOWN):
            raise MatrixError(403, "M_FORBIDDEN", placed.why or "The room's rules refuse this event")
        return event
