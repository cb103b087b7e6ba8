"""History from before this server came into a room: fetched from those who were there, put before the room's log.

Server-Server API, "Backfilling and retrieving missing events". What comes is checked like any event, but nobody is told of it
and it changes neither heads nor current state; it is found by whoever pages back.
"""

from msgspec import structs

from federation.rules.auth import check_auth
from federation.rules.auth_events import CREATE, AuthError, check_auth_event_list
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from homeserver.rooms.checking import Checking, in_order
from homeserver.rooms.gaps import Gaps
from homeserver.rooms.peers import Peers
from homeserver.rooms.redacting import Redacting
from homeserver.rooms.room import Room, Rooms, StateKey, stored_form
from homeserver.rooms.servers import Servers
from homeserver.rooms.state_at import States
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Batch

MAX_SERVERS = 5
"""Servers that are asked for one page before giving up."""
MAX_PAGE = 100
MAX_STARTS = 20


class History:
    """Fetches older events."""

    def __init__(
        self, rooms: Rooms, states: States, servers: Servers, checking: Checking, gaps: Gaps, peers: Peers
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._servers = servers
        self._checking = checking
        self._gaps = gaps
        self._peers = peers
        self._redacting = Redacting(rooms)

    def has_more(self, room_id: str) -> bool:
        """Whether there is history that other servers may have."""
        room = self._rooms.find(room_id)
        return room is not None and bool(self._starts(room))

    async def fetch(self, room_id: str, limit: int = MAX_PAGE) -> int:
        """Fetch up to ``limit`` older events and store them; how many there were. 0: nobody has any, or none answers."""
        room = self._rooms.find(room_id)
        starts = [] if room is None else self._starts(room)
        if room is None or not starts:
            return 0
        for server in self._servers.to_ask(room)[:MAX_SERVERS]:
            try:
                stored = await self._fetch_from(server, room_id, starts, min(limit, MAX_PAGE))
            except MatrixError:
                continue
            if stored:
                return stored
        return 0

    def _starts(self, room: Room) -> list[str]:
        """Predecessors, not here, of the events that have some."""
        missing: dict[str, None] = {}
        for event_id in room.meta.backward_extremities:
            event = self._rooms.event(event_id)
            for before in () if event is None else event.prev_event_ids:
                known = self._rooms.event(before)
                if known is not None and known.room_id != room.room_id:
                    continue  # of another room: nobody has anything to tell that leads there
                if not self._states.is_here(room.room_id, before):
                    missing[before] = None
        return list(missing)[:MAX_STARTS]

    async def _fetch_from(self, server: str, room_id: str, starts: list[str], limit: int) -> int:
        room = self._rooms.get(room_id)
        pdus = await self._peers.backfill(server, room_id, starts, limit)
        found = await self._checking.events(pdus[:limit], room.version, room_id)
        new = {id_: event for id_, event in found.items() if not self._states.is_here(room_id, id_)}
        connected = self._connected(new, starts)
        if not connected:
            return 0
        bottoms = await self._bottom_states(server, room_id, connected)
        return await self._store(room_id, connected, bottoms)

    def _connected(self, found: dict[str, Event], starts: list[str]) -> dict[str, Event]:
        """Of what came, that which leads back from where we asked; a peer could send anything."""
        reached: dict[str, Event] = {}
        stack = list(starts)
        while stack:
            event = found.get(stack.pop())
            if event is not None and event.event_id not in reached:
                reached[event.event_id] = event
                stack += event.prev_event_ids
        return reached

    async def _bottom_states(self, server: str, room_id: str, events: dict[str, Event]) -> dict[str, bytes]:
        """The states before those events of which a predecessor neither came nor is here with a whole state."""
        states: dict[str, bytes] = {}
        for event in events.values():
            unknown = [id_ for id_ in event.prev_event_ids if id_ not in events and self._states.after(room_id, id_) is None]
            if unknown and len(states) < MAX_STARTS:
                states[event.event_id] = await self._gaps.state_before(server, room_id, event.event_id)
        return states

    async def _store(self, room_id: str, events: dict[str, Event], bottoms: dict[str, bytes]) -> int:
        """One turn. Events stand before the room's log in the order of the graph; rejected ones without a place."""
        room = self._rooms.get(room_id)
        batch = self._rooms.log.begin()
        after: dict[str, bytes] = {}
        accepted: list[tuple[Event, bytes, bytes]] = []
        try:
            for event in in_order(events.values(), by_predecessors=True):
                before = self._before(batch, room, event, after, bottoms)
                if before is None or self._states.is_here(room_id, event.event_id):
                    continue
                if any(self._rooms.event(id_) is None for id_ in event.auth_event_ids):
                    continue
                self._rooms.remember(event)
                if self._allowed(room, event, before):
                    changed = {(event.type, event.state_key): event.event_id} if event.state_key is not None else {}
                    after[event.event_id] = room.change_state(batch, before, changed) if changed else before
                    accepted.append((event, before, after[event.event_id]))
                else:
                    after[event.event_id] = before
                    form = stored_form(event, before, before, flags=event_log.REJECTED)
                    event_log.put_outlier(batch, room.meta.nid, form)
            self._put(batch, room, accepted)
            self._move_edges(batch, room, after, bottoms, len(accepted))
        except BaseException:
            self._rooms.drop(room_id)
            raise
        await self._rooms.log.append(batch)
        return len(accepted)

    def _before(
        self, batch: Batch, room: Room, event: Event, after: dict[str, bytes], bottoms: dict[str, bytes]
    ) -> bytes | None:
        if event.event_id in bottoms:
            return bottoms[event.event_id]
        roots = [after.get(id_) or self._states.after(room.room_id, id_) for id_ in event.prev_event_ids]
        if any(root is None for root in roots):
            return None
        return self._states.resolve(batch, room, [root for root in roots if root is not None])

    def _allowed(self, room: Room, event: Event, before: bytes) -> bool:
        cited = [found for id_ in event.auth_event_ids if (found := self._rooms.event(id_)) is not None]
        state: dict[StateKey, Event] = {(found.type, found.state_key or ""): found for found in cited}
        create = room.state("m.room.create")
        if create is not None and room.version.room_id_is_create_hash:
            state[CREATE] = create
        try:
            check_auth_event_list(event, cited, self._states.is_rejected)
            check_auth(event, state)
            check_auth(event, self._states.auth_state(room, before, event))
        except AuthError:
            return False
        return True

    def _put(self, batch: Batch, room: Room, accepted: list[tuple[Event, bytes, bytes]]) -> None:
        seq = room.meta.first_seq - len(accepted)
        for event, before, after in accepted:
            form = stored_form(event, before, after)
            record = event_log.put_event(batch, room.meta.nid, seq, form)
            self._redacting.arrived(batch, room, event, before)
            self._redacting.overtaken(batch, room, record)
            seq += 1

    def _move_edges(
        self, batch: Batch, room: Room, after: dict[str, bytes], bottoms: dict[str, bytes], placed: int
    ) -> None:
        """The room's log begins earlier now, and so does what is missing."""
        edges = []
        for event_id in room.meta.backward_extremities:
            event = self._rooms.event(event_id)
            ids = () if event is None else event.prev_event_ids
            if any(id_ not in after and not self._states.is_here(room.room_id, id_) for id_ in ids):
                edges.append(event_id)
        edges += [event_id for event_id in bottoms if event_id in after]
        room.meta = structs.replace(
            room.meta, first_seq=room.meta.first_seq - placed, backward_extremities=edges[-50:]
        )
        room_log.put_room(batch, room.meta)
