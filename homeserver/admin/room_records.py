"""A room as it stands in the log, for commands that read beside the running server: events, states, judging again."""

from collections.abc import Iterator

from federation.rules.auth import check_auth, check_citations
from federation.rules.auth_events import CREATE, AuthError, auth_types_for
from federation.rules.event import Event
from federation.rules.room_versions import room_version
from homeserver.rooms.extremities import DUMMY
from storage.log import events as event_log
from storage.log.catalog import OUTLIERS
from storage.log.events import EventRecord
from storage.log.rooms import RoomMeta
from storage.log.state_map import NodeCache, StateMap
from storage.log.view import Snapshot

Change = tuple[EventRecord | None, str | None, str | None]
"""The event with whose arrival a piece of the room's state changed (None: none), which event held it before, and which after."""


class RoomRecords:
    """One room of a view of the log."""

    def __init__(self, view: Snapshot, meta: RoomMeta) -> None:
        self.view = view
        self.meta = meta
        self.version = room_version(meta.version)
        self.states = StateMap(view.get, meta.nid, NodeCache())

    def record(self, event_id: str) -> EventRecord | None:
        """What is stored of an event of this room."""
        found = event_log.event_by_id(self.view, event_id)
        return None if found is None or found.room_id != self.meta.room_id else found

    def event(self, record: EventRecord) -> Event:
        """A stored event, parsed."""
        return Event.from_json(record.pdu, self.version, event_id=record.event_id)

    def forward(self) -> Iterator[EventRecord]:
        """The room's events as they came, without history that was fetched later."""
        return event_log.room_slice(self.view, self.meta.nid, 1, self.meta.last_seq + 1)

    def about(self, type_: str, state_key: str) -> list[EventRecord]:
        """Every stored event for one piece of state: those in the room's order, oldest first, then those without a place."""
        meta = self.meta
        text = state_key.encode()
        placed = event_log.room_slice(self.view, meta.nid, meta.first_seq, meta.last_seq + 1)
        outliers = (EventRecord(data) for _, data in self.view.range(OUTLIERS, b"\0", b"\xff" * 511) if text in data)
        records = [*placed, *(record for record in outliers if record.room_nid == meta.nid)]
        return [record for record in records if record.type == type_ and record.state_key == state_key]

    def holders(self, type_: str, state_key: str) -> Iterator[Change]:
        """How a piece of the room's state changed, event by event; the first has no event and says how it began."""
        root: bytes | None = None
        held: str | None = None
        for record in self.forward():
            if root is None:
                root = record.state_before
                held = self.states.get(root, type_, state_key)
                yield None, None, held
            if record.room_state == root:
                continue
            root = record.room_state
            holder = self.states.get(root, type_, state_key)
            if holder != held:
                yield record, held, holder
                held = holder
        holder = self.states.get(self.meta.state_root, type_, state_key)
        if holder != held:
            yield None, held, holder

    def room_state_before(self, record: EventRecord) -> bytes:
        """Root of the room's state when an event came."""
        if record.seq is None or record.seq <= 1:
            return record.state_before
        earlier = event_log.event_at(self.view, self.meta.nid, record.seq - 1)
        return record.state_before if earlier is None else earlier.room_state

    # -- judging again -----------------------------------------------------------------------------------------------

    def refusal(self, record: EventRecord) -> str:
        """Why a rejected or soft-failed event was not accepted: the checks are done again, on the states that it met."""
        event = self.event(record)
        if record.rejected:
            try:
                self._check_citations(event)
            except AuthError as error:
                return f"by the events that it cites: {error.error}"
            if record.state_before:
                why = self.forbidden(event, record.state_before)
                if why is not None:
                    return f"by the state before it: {why}"
            return "not to be found out any more: judged again it is allowed"
        why = self.forbidden(event, record.room_state)
        if why is not None:
            return f"by the room's state when it came: {why}"
        if event.type == DUMMY:
            return "it is hidden on purpose: a server has tied up loose ends with it"
        if event.type == "m.room.redaction":
            return "a redaction that may not redact its target, or has not found it yet"
        return "no rule refuses it: the room's policy server has not recommended it"

    def forbidden(self, event: Event, root: bytes) -> str | None:
        """What the auth rules have against an event in a state; None when they allow it."""
        keys = auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)
        state = {}
        for key in (CREATE, *keys):
            holder = self.states.get(root, *key)
            record = None if holder is None else event_log.event_by_id(self.view, holder)
            if record is not None:
                state[key] = self.event(record)
        try:
            check_auth(event, state)
        except AuthError as error:
            return error.error
        return None

    def _check_citations(self, event: Event) -> None:
        cited = [event_log.event_by_id(self.view, event_id) for event_id in event.auth_event_ids]
        missing = [id_ for id_, found in zip(event.auth_event_ids, cited, strict=True) if found is None]
        if missing:
            raise AuthError(f"{missing[0]} is not here")
        create = self.record("$" + self.meta.room_id[1:])
        check_citations(
            event,
            [self.event(found) for found in cited if found is not None],
            None if create is None else self.event(create),
            self._is_rejected,
        )

    def _is_rejected(self, event_id: str) -> bool:
        record = event_log.event_by_id(self.view, event_id)
        return record is not None and record.rejected
