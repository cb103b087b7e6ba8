"""Giving an event from another server its place in a room: the last of the checks, then one append.

Server-Server API, "Checks performed on receipt of a PDU", steps 4 to 7, "Rejection" and "Soft failure". All of it is one
synchronous turn: whatever had to be fetched was fetched before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from msgspec import structs
from twisted.internet.defer import Deferred, succeed

from federation.rules.auth import check_auth, check_citations
from federation.rules.auth_events import AuthError, AuthState
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from homeserver.rooms.current_state import MEMBER, CurrentState
from homeserver.rooms.notes import EventNote
from homeserver.rooms.redacting import Redacting
from homeserver.rooms.room import Room, Rooms, stored_form
from homeserver.rooms.state_at import States, is_placed
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Batch

MAX_WALK = 200
"""How many events that no head follows are looked through when the heads are computed."""
MAX_BACKWARD = 50
"""Events with missing predecessors that a room remembers; the oldest are forgotten."""


class Verdict(Enum):
    """What became of an event."""

    ACCEPTED = auto()
    SOFT_FAILED = auto()
    REJECTED = auto()
    KNOWN = auto()


@dataclass(slots=True)
class Placed:
    """The outcome of a turn; ``durable`` fires when it is written down, ``why`` says why an event was not accepted."""

    verdict: Verdict
    durable: "Deferred[int]"
    why: str = ""


Also = Callable[[Batch, Room, Event, EventNote], None]
"""What is done with an event in the turn that appends it."""


@dataclass(slots=True)
class _Own:
    txn: tuple[str, str] | None
    also: Also | None


class MissingAuthEvents(MatrixError):
    """Events that an event cites are not here; nothing can be said about it."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(403, "M_FORBIDDEN", "The event cites auth events that are not known")
        self.missing = missing


class MissingPredecessors(MatrixError):
    """Events before an event are not here."""

    def __init__(self, missing: list[str]) -> None:
        super().__init__(404, "M_NOT_FOUND", "Events before this one are not known")
        self.missing = missing


class Place:
    """Places checked events (format, signatures and hash are done) into rooms."""

    def __init__(
        self, rooms: Rooms, states: States, current: CurrentState, recommended: Callable[[Room, Event], bool]
    ) -> None:
        """``recommended`` says whether the room's policy server, if it has one, is for an event."""
        self._rooms = rooms
        self._states = states
        self._current_state = current
        self._recommended = recommended
        self._redacting = Redacting(rooms)

    def missing(self, event: Event) -> tuple[list[str], list[str]]:
        """Ids of ``(predecessors, auth events)`` without which the event cannot be placed."""
        states, rooms = self._states, self._rooms
        before = [event_id for event_id in event.prev_event_ids if states.after(event.room_id, event_id) is None]
        cited = [event_id for event_id in event.auth_event_ids if rooms.event(event_id) is None]
        return before, cited

    def is_here(self, room_id: str, event_id: str) -> bool:
        """Whether an event has its place in a room, be its state known or not."""
        return self._states.is_here(room_id, event_id)

    def place(
        self,
        room: Room,
        event: Event,
        states_after: Mapping[str, bytes] | None = None,
        *,
        relayed: bool = False,
        txn: tuple[str, str] | None = None,
        also: Also | None = None,
    ) -> Placed:
        """One turn. ``states_after`` has the states after predecessors that are not here, as a peer told them.

        ``relayed`` marks an event for which this server vouches to the others (send_join and the like). ``txn`` (device
        and transaction) and ``also`` are for events of our own: the latter is done with an accepted one, in the same
        batch. Raises MissingAuthEvents and MissingPredecessors when something is still to be fetched.
        """
        known = event_log.event_by_id(self._rooms.log, event.event_id)
        if known is not None and is_placed(known):
            return Placed(Verdict.REJECTED if known.rejected else Verdict.KNOWN, succeed(0))
        batch = self._rooms.log.begin()
        try:
            verdict, why = self._turn(batch, room, event, states_after or {}, relayed, _Own(txn, also))
        except BaseException:
            self._rooms.drop(room.room_id)
            raise
        return Placed(verdict, self._rooms.log.append(batch), why)

    def _turn(
        self, batch: Batch, room: Room, event: Event, states_after: Mapping[str, bytes], relayed: bool, own: "_Own"
    ) -> tuple[Verdict, str]:
        cited = self._cited(event)
        before = self._state_before(batch, room, event, states_after)
        if room.meta.partial_state:
            before = self.with_cited_members(batch, room, cited, before)
        try:
            self._check(room, event, cited, before)
        except AuthError as error:
            form = stored_form(event, before, before, flags=event_log.REJECTED)
            event_log.put_outlier(batch, room.meta.nid, form)
            return Verdict.REJECTED, error.error
        if before != room.meta.state_root:
            try:
                check_auth(event, self._current_auth_state(room, event, before))
            except AuthError as error:
                self._append(batch, room, event, before, event_log.SOFT_FAILED, states_after, own)
                return Verdict.SOFT_FAILED, error.error
        if not self._recommended(room, event):
            self._append(batch, room, event, before, event_log.SOFT_FAILED, states_after, own)
            return Verdict.SOFT_FAILED, "The room's policy server has not recommended the event"
        note = self._append(batch, room, event, before, event_log.RELAYED if relayed else 0, states_after, own)
        if own.also is not None and note is not None:
            own.also(batch, room, event, note)
        return Verdict.ACCEPTED, ""

    # -- the checks ------------------------------------------------------------------------------------------------

    def _cited(self, event: Event) -> list[Event]:
        found = [self._rooms.event(event_id) for event_id in event.auth_event_ids]
        missing = [id_ for id_, cited in zip(event.auth_event_ids, found, strict=True) if cited is None]
        if missing:
            raise MissingAuthEvents(missing)
        return [cited for cited in found if cited is not None]

    def _state_before(
        self, batch: Batch, room: Room, event: Event, states_after: Mapping[str, bytes]
    ) -> bytes:
        roots = []
        missing = []
        for event_id in event.prev_event_ids:
            root = self._states.after(room.room_id, event_id)
            root = states_after.get(event_id) if root is None else root
            if root is None:
                missing.append(event_id)
            else:
                roots.append(root)
        if missing:
            raise MissingPredecessors(missing)
        return self._states.resolve(batch, room, roots)

    def with_cited_members(self, batch: Batch, room: Room, cited: list[Event], before: bytes) -> bytes:
        """While members are missing from a room's state, those that an event cites are taken to be as it says."""
        found = {
            (event.type, event.state_key): event.event_id
            for event in cited
            if event.type == MEMBER
            and event.state_key is not None
            and event.room_id == room.room_id
            and not self._states.is_rejected(event.event_id)
            and room.state_map.get(before, event.type, event.state_key) is None
        }
        return room.change_state(batch, before, found) if found else before

    def _current_auth_state(self, room: Room, event: Event, before: bytes) -> AuthState:
        current = self._states.auth_state(room, room.meta.state_root, event)
        if room.meta.partial_state:
            return {**self._states.auth_state(room, before, event), **current}
        return current

    def check(self, room: Room, event: Event, before: bytes) -> None:
        """Judge a stored event again, by what it cites and by the state before it. Raises AuthError."""
        self._check(room, event, self._cited(event), before)

    def _check(self, room: Room, event: Event, cited: list[Event], before: bytes) -> None:
        """Steps 4 and 5. Raises AuthError."""
        check_citations(event, cited, room.state("m.room.create"), self._states.is_rejected)
        levels = room.power_levels if before == room.meta.state_root else None
        check_auth(event, self._states.auth_state(room, before, event), levels)

    # -- what is written ---------------------------------------------------------------------------------------------

    def _append(
        self,
        batch: Batch,
        room: Room,
        event: Event,
        before: bytes,
        flags: int,
        states_after: Mapping[str, bytes],
        own: "_Own",
    ) -> EventNote | None:
        meta = room.meta
        soft = bool(flags & event_log.SOFT_FAILED)
        after = before
        if event.state_key is not None:
            after = room.change_state(batch, before, {(event.type, event.state_key): event.event_id})
        seq = meta.last_seq + 1
        if self._redacting.is_withheld(room, event, before):
            flags |= event_log.SOFT_FAILED
        hidden = bool(flags & event_log.SOFT_FAILED)
        note = None if hidden else self._note(room, event, seq)
        self._rooms.remember(event)
        heads, current = meta.extremities, meta.state_root
        if not soft:
            heads = self.heads_with(room, event)
            current = self._current(batch, room, event, heads, after)
        form = stored_form(event, before, after, own.txn, flags)
        form.room_state = current
        record = event_log.put_event(batch, meta.nid, seq, form, announce=not hidden, note=note)
        adopted = self._current_state.adopt(batch, room, current, event, note, record.position)
        room.meta = structs.replace(
            adopted,
            last_seq=seq,
            last_position=adopted.last_position if hidden else record.position,
            extremities=heads,
            backward_extremities=self._backward(room, event, states_after),
        )
        room_log.put_room(batch, room.meta)
        if note is not None:
            note.record = record
        if not soft:
            self._redacting.arrived(batch, room, event, before)
        self._redacting.overtaken(batch, room, record)
        return note

    def _note(self, room: Room, event: Event, seq: int) -> EventNote:
        return EventNote(
            None, room.room_id, event.event_id, event.sender, event.type, event.state_key, seq, encrypted=room.encrypted
        )

    def heads_with(self, room: Room, event: Event) -> list[tuple[str, int]]:
        """The forward extremities of the room once the event is in it."""
        covered = set(event.prev_event_ids)
        walk = list(event.prev_event_ids)
        for _ in range(MAX_WALK):
            if not walk:
                break
            record = event_log.event_by_id(self._rooms.log, walk.pop())
            # A soft-failed or rejected predecessor is no head itself: what lies before it is covered through it.
            if record is not None and (record.soft_failed or record.rejected):
                passed = Event.from_json(record.pdu, room.version, event_id=record.event_id)
                fresh = [event_id for event_id in passed.prev_event_ids if event_id not in covered]
                covered.update(fresh)
                walk += fresh
        heads = [(event_id, depth) for event_id, depth in room.meta.extremities if event_id not in covered]
        if not self._is_followed(room, event.event_id):
            heads.append((event.event_id, event.depth))
        return heads

    def _is_followed(self, room: Room, event_id: str) -> bool:
        """Whether an event that is placed names this one as its predecessor: it came through a gap."""
        return any(
            follower is not None and event_id in follower.prev_event_ids
            for follower in map(self._rooms.event, room.meta.backward_extremities)
        )

    def _backward(self, room: Room, event: Event, states_after: Mapping[str, bytes]) -> list[str]:
        """The events whose predecessors are not all here, once this event is."""
        backward = room.meta.backward_extremities
        kept = []
        for follower_id in backward:
            follower = self._rooms.event(follower_id)
            if follower is not None and event.event_id in follower.prev_event_ids:
                rest = [id_ for id_ in follower.prev_event_ids if id_ != event.event_id]
                if all(self._states.is_here(room.room_id, id_) for id_ in rest):
                    continue
            kept.append(follower_id)
        if states_after and not all(self._states.is_here(room.room_id, id_) for id_ in event.prev_event_ids):
            kept.append(event.event_id)
        return kept[-MAX_BACKWARD:]

    def _current(
        self, batch: Batch, room: Room, event: Event, heads: list[tuple[str, int]], after: bytes
    ) -> bytes:
        roots = []
        for event_id, _ in heads:
            root = after if event_id == event.event_id else self._states.after(room.room_id, event_id)
            if root is not None:
                roots.append(root)
        return self._states.resolve(batch, room, roots) if roots else room.meta.state_root
