"""One room, and the order in which anything happens in it.

Everything here runs synchronously on the reactor: a turn drafts an event against the newest submitted state, checks it
with the auth rules and stages it into a batch, and nothing else can happen in the room in between. So a turn needs no lock,
and what is behind a kick in the log was decided after the kick. Whoever called then awaits the batch's durability and
only after that answers ("decide, save, then release").

What a turn sees is the write side of the log (`Log.get`): submitted, possibly not yet durable. Readers never see it
before it is durable; if a commit fails, the log refuses everything from then on and the server stops.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from msgspec import structs
from twisted.internet.defer import Deferred

from federation.rules.auth import CREATE, auth_types_for, check_auth
from federation.rules.errors import MatrixError
from federation.rules.event import Event, build_event
from federation.rules.power_levels import PowerLevels
from federation.rules.room_versions import RoomVersion, room_version
from federation.rules.signing import SigningKey
from homeserver.rooms.notes import EventNote
from storage.log import events as event_log
from storage.log import removal
from storage.log import rooms as room_log
from storage.log.append import Batch, Kind, Log
from storage.log.relations import Relation
from storage.log.state_map import StateMap, put_nodes

if TYPE_CHECKING:
    from homeserver.rooms.policy import Policed

MAX_PREV_EVENTS = 20
"""An event names at most this many predecessors (Server-Server API, "PDUs": larger lists are refused by peers)."""

MAX_DEPTH = 2**53 - 1
"""The largest integer of canonical JSON; `depth` stays there when a peer has pushed it up."""

StateKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to happen in a room, before it has predecessors, auth events and a signature."""

    sender: str
    type: str
    content: Mapping[str, Any]
    state_key: str | None = None
    redacts: str | None = None
    timestamp: int | None = None
    """Milliseconds since the epoch; None means now. Only application services may set it."""


class Room:
    """The write side of one room: its current state, its heads, and the means to add an event."""

    def __init__(self, rooms: "Rooms", meta: room_log.RoomMeta) -> None:
        self._rooms = rooms
        self.meta = meta
        self.room_id = meta.room_id
        self.version: RoomVersion = room_version(meta.version)
        self.state_map = StateMap(rooms.log.get, meta.nid)
        self._known: dict[StateKey, Event | None] = {}
        self._power_levels: PowerLevels | None = None

    # -- reading the current state -------------------------------------------------------------------------------

    def state(self, type_: str, state_key: str = "") -> Event | None:
        """The event that holds this piece of current state, None if there is none."""
        key = (type_, state_key)
        if key in self._known:
            return self._known[key]
        event_id = self.state_map.get(self.meta.state_root, type_, state_key)
        event = None if event_id is None else self._rooms.event(event_id)
        self._known[key] = event
        return event

    def content(self, type_: str, state_key: str = "") -> Mapping[str, Any]:
        """The content of a piece of current state, empty if there is none."""
        event = self.state(type_, state_key)
        return {} if event is None else event.content

    def membership(self, user_id: str) -> str | None:
        """The user's current membership, None if there never was one."""
        event = self.state("m.room.member", user_id)
        if event is None:
            return None
        membership = event.content.get("membership")
        return membership if isinstance(membership, str) else None

    @property
    def power_levels(self) -> PowerLevels:
        """The power levels in force, computed once for each m.room.power_levels event."""
        if self._power_levels is None:
            create = self.state("m.room.create")
            if create is None:
                raise MatrixError(404, "M_NOT_FOUND", "Unknown room")
            self._power_levels = PowerLevels.of(create, self.state("m.room.power_levels"), self.version)
        return self._power_levels

    @property
    def encrypted(self) -> bool:
        """Whether messages in this room are end-to-end encrypted."""
        return self.state("m.room.encryption") is not None

    def join_rule(self) -> str:
        """The join rule in force; a room without one is invite-only (Client-Server API, m.room.join_rules)."""
        rule = self.content("m.room.join_rules").get("join_rule")
        return rule if isinstance(rule, str) else "invite"

    def members(self) -> Iterator[tuple[str, str]]:
        """``(user id, event id)`` of every m.room.member event of the current state."""
        for (_, user_id), event_id in self.state_map.items(self.meta.state_root, "m.room.member"):
            yield user_id, event_id

    def local_joined(self) -> Iterator[str]:
        """The users of this server who are joined."""
        suffix = f":{self._rooms.server_name}"
        for user_id, _ in self.members():
            if user_id.endswith(suffix) and self.membership(user_id) == "join":
                yield user_id

    def open(self, batch: Batch, create: Event) -> EventNote:
        """Stage the create event of a new room. MatrixError 403 if the rules refuse it.

        The room's number in keys is a position of its own, taken right before its first event.
        """
        check_auth(create, {})
        self.meta.nid = batch.entry(Kind.ROOM, room_id=self.room_id)
        self.state_map = StateMap(self._rooms.log.get, self.meta.nid)
        room_log.create_room(batch, self.meta)
        return self.stage(batch, create)

    # -- a turn ----------------------------------------------------------------------------------------------------

    def decide(self, draft: Draft) -> Event:
        """Draft to signed event on top of the room's heads, checked against the current state.

        Raises MatrixError 403 when the auth rules refuse it, 413 when it is too large.
        """
        keys = auth_types_for(draft.type, draft.state_key, draft.sender, draft.content, self.version)
        auth_events = {key: event for key in keys if (event := self.state(*key)) is not None}
        heads = self.meta.extremities[:MAX_PREV_EVENTS]
        depth = min(MAX_DEPTH, 1 + max((depth for _, depth in self.meta.extremities), default=0))
        event = self._rooms.build(
            self.version,
            draft,
            room_id=self.room_id,
            depth=depth,
            prev_events=[self.reference(event_id) for event_id, _ in heads],
            auth_events=[event.reference() for event in auth_events.values()],
        )
        create = self.state("m.room.create")
        if create is not None:
            auth_events[CREATE] = create  # judged by, even where the version does not cite it
        check_auth(event, auth_events, self.power_levels)
        return event

    def reference(self, event_id: str) -> Any:
        """How another event names a stored one as its predecessor."""
        if self.version.hashed_event_ids:
            return event_id
        event = self._rooms.event(event_id)
        assert event is not None, "a head of the room is stored"
        return event.reference()

    def stage(
        self, batch: Batch, event: Event, *, txn: tuple[str, str] | None = None, flags: int = 0
    ) -> EventNote:
        """Put a decided event at the end of the room: record, indexes, state and heads, all in `batch`.

        With the flag SOFT_FAILED it is part of the graph that no client is told of.

        The room's own picture moves on at once, so that the next turn builds on this event.
        """
        meta = self.meta
        seq = meta.last_seq + 1
        before = after = meta.state_root
        note = EventNote(
            None, self.room_id, event.event_id, event.sender, event.type, event.state_key, seq, encrypted=self.encrypted
        )
        if event.state_key is not None:
            if event.type == "m.room.member":
                note.target = event.state_key
                note.prev_membership = self.membership(event.state_key)
                note.membership = str(event.content.get("membership"))
            after = self.change_state(batch, before, {(event.type, event.state_key): event.event_id})
        record = event_log.put_event(
            batch,
            meta.nid,
            seq,
            stored_form(event, before, after, txn, flags),
            announce=not flags & event_log.SOFT_FAILED,
            note=note,
        )
        note.record = record
        self._take_state(batch, event, note, record.position)
        self.meta = structs.replace(
            meta,
            last_seq=seq,
            last_position=record.position,
            state_root=after,
            extremities=[(event.event_id, event.depth), *meta.extremities[MAX_PREV_EVENTS:]],
            joined=meta.joined + (note.membership == "join") - (note.prev_membership == "join"),
            invited=meta.invited + (note.membership == "invite") - (note.prev_membership == "invite"),
        )
        room_log.put_room(batch, self.meta)
        return note

    def _take_state(self, batch: Batch, event: Event, note: EventNote, position: int) -> None:
        """What a state event changes besides the state map: the cached picture and the member's index row."""
        if event.state_key is None:
            return
        self._known[(event.type, event.state_key)] = event
        self._rooms.remember(event)
        if event.type in ("m.room.power_levels", "m.room.create"):
            self._power_levels = None
        if note.target is not None and note.membership is not None:
            room_log.put_membership(
                batch,
                note.target,
                room_log.MembershipRecord(self.room_id, note.membership, position, event.event_id, event.sender),
            )

    def change_state(self, batch: Batch, root: bytes, changes: Mapping[StateKey, str | None]) -> bytes:
        """A new state with some pieces replaced (None removes); its new nodes go into the batch."""
        nodes: dict[bytes, bytes] = {}
        after = self.state_map.set(root, changes, nodes)
        put_nodes(batch, self.meta.nid, nodes)
        return after

    def forget_state(self, key: StateKey) -> None:
        """Drop a piece of state from the cached picture: the current state has another event there now."""
        self._known.pop(key, None)
        if key[0] in ("m.room.power_levels", "m.room.create"):
            self._power_levels = None

    def forget_cached(self, event_id: str) -> None:
        """Drop a state event from the cached picture (its stored form has changed, as by a redaction)."""
        for key, event in list(self._known.items()):
            if event is not None and event.event_id == event_id:
                del self._known[key]
        self._power_levels = None


def relation_of(event: Event) -> Relation | None:
    """What the event relates to, as it is indexed; None if it relates to nothing well-formed.

    Client-Server API, "Forming relationships between events".
    """
    relates = event.content.get("m.relates_to")
    if not isinstance(relates, dict):
        return None
    rel_type, parent, key = relates.get("rel_type"), relates.get("event_id"), relates.get("key", "")
    if not isinstance(rel_type, str) or not isinstance(parent, str):
        return None
    if not 0 < len(parent) <= 255 or not 0 < len(rel_type) <= 255:
        return None
    return Relation(parent, rel_type, event.type, key if isinstance(key, str) else "")


def stored_form(
    event: Event, state_before: bytes, state_after: bytes, txn: tuple[str, str] | None = None, flags: int = 0
) -> event_log.NewEvent:
    """An event as the log stores it."""
    return event_log.NewEvent(
        event_id=event.event_id,
        room_id=event.room_id,
        pdu=event.json,
        spans=event.spans,
        sender=event.sender,
        depth=event.depth,
        origin_server_ts=event.origin_server_ts,
        state_before=state_before,
        state_after=state_after,
        flags=flags,
        txn=txn,
        relation=relation_of(event),
    )


LOCALPART_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Rooms:
    """All rooms of this server, loaded from the log when somebody needs them."""

    MAX_LOADED = 1000
    MAX_EVENTS = 10_000

    def __init__(
        self,
        log: Log,
        server_name: str,
        signing_key: SigningKey,
        now_ms: Callable[[], int],
        chance: Random | None = None,
    ) -> None:
        """``chance`` makes what nobody may guess or meet twice; the system's secure source by default."""
        self.log = log
        self.server_name = server_name
        self._signing_key = signing_key
        self.now_ms = now_ms
        self._chance = chance or SystemRandom()
        self.policed: Policed | None = None
        """Set when the server federates: for rooms in which a policy server is asked first."""
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._events: OrderedDict[str, Event] = OrderedDict()

    def settled(self) -> "Deferred[int]":
        """Fires when everything submitted so far is durable: for answers that repeat an earlier one."""
        return self.log.append(self.log.begin())

    def new_localpart(self) -> str:
        """The random part of a new identifier."""
        return "".join(self._chance.choice(LOCALPART_ALPHABET) for _ in range(18))

    # -- rooms -----------------------------------------------------------------------------------------------------

    def find(self, room_id: str) -> Room | None:
        """The room, None if this server has never heard of it."""
        room = self._rooms.get(room_id)
        if room is not None:
            self._rooms.move_to_end(room_id)
            return room
        meta = room_log.room_meta(self.log, room_id)
        if meta is None:
            return None
        return self.add(Room(self, meta))

    def get(self, room_id: str) -> Room:
        """The room; MatrixError 404 M_NOT_FOUND if this server has never heard of it."""
        room = self.find(room_id)
        if room is None:
            raise MatrixError(404, "M_NOT_FOUND", "Unknown room")
        return room

    def check_open(self, room_id: str) -> None:
        """MatrixError 403 for a room that nobody of this server may enter, or that is just being deleted here."""
        if removal.is_blocked(self.log, room_id):
            raise MatrixError(403, "M_FORBIDDEN", "This room is blocked on this server")
        if removal.removal_of(self.log, room_id) is not None:
            raise MatrixError(403, "M_FORBIDDEN", "This room is being deleted on this server")

    def add(self, room: Room) -> Room:
        """Keep a room in memory, the least recently used one gives way."""
        self._rooms[room.room_id] = room
        if len(self._rooms) > self.MAX_LOADED:
            self._rooms.popitem(last=False)
        return room

    def forget_room(self, room_id: str) -> None:
        """Forget all of a room that was deleted, its events too."""
        self.drop(room_id)
        self._events = OrderedDict((id_, event) for id_, event in self._events.items() if event.room_id != room_id)

    def drop(self, room_id: str) -> None:
        """Forget the picture in memory, as after a turn that was not appended."""
        self._rooms.pop(room_id, None)

    # -- events ----------------------------------------------------------------------------------------------------

    def event(self, event_id: str) -> Event | None:
        """An event by id from the write side, parsed; None if unknown."""
        event = self._events.get(event_id)
        if event is not None:
            self._events.move_to_end(event_id)
            return event
        record = event_log.event_by_id(self.log, event_id)
        if record is None:
            return None
        meta = room_log.room_meta(self.log, record.room_id)
        if meta is None:
            return None
        event = Event.from_json(record.pdu, room_version(meta.version), event_id=event_id)
        self.remember(event)
        return event

    def remember(self, event: Event) -> None:
        """Keep a parsed event; state and auth events are asked for again and again."""
        self._events[event.event_id] = event
        if len(self._events) > self.MAX_EVENTS:
            self._events.popitem(last=False)

    def forget_event(self, room: Room, event_id: str) -> None:
        """Drop the parsed form of an event whose stored form has changed."""
        self._events.pop(event_id, None)
        room.forget_cached(event_id)

    def build(
        self,
        version: RoomVersion,
        draft: Draft,
        *,
        room_id: str | None,
        depth: int,
        prev_events: list[Any],
        auth_events: list[Any],
    ) -> Event:
        """Hash and sign a draft as an event of this server."""
        return build_event(
            version,
            room_id=room_id,
            sender=draft.sender,
            type=draft.type,
            content=dict(draft.content),
            state_key=draft.state_key,
            redacts=draft.redacts,
            depth=depth,
            prev_event_ids=prev_events,
            auth_event_ids=auth_events,
            origin_server_ts=self.now_ms() if draft.timestamp is None else draft.timestamp,
            server_name=self.server_name,
            signing_key=self._signing_key,
            event_id=None if version.hashed_event_ids else f"${self.new_localpart()}:{self.server_name}",
        )

