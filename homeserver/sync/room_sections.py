"""One room of a sync: the entries of ``rooms.join``, ``rooms.leave``, ``rooms.invite`` and ``rooms.knock``.

Specification: Client-Server API, "GET /_matrix/client/v3/sync".
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import orjson

from homeserver.rooms.sight import Sights
from homeserver.rooms.visibility import Sight
from homeserver.sync import assemble
from homeserver.sync.changes import RoomChanges
from homeserver.sync.room_ephemeral import RoomEphemeral
from homeserver.sync.scope import Scope, has_url
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.state_section import (
    MEMBER,
    Span,
    StateKey,
    state_changes,
    state_for_end,
    state_for_start,
    told_by,
)
from homeserver.sync.summary import Summaries
from homeserver.sync.timeline import Timeline, choose
from storage.log import events as event_log
from storage.log import rooms as room_log

STRIPPED = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.name",
    "m.room.encryption",
    "m.room.topic",
    "m.room.history_visibility",
)
"""What somebody outside is told of a room (Client-Server API, "Stripped state")."""


class UnreadSource(Protocol):
    """Unread and highlight counts (``homeserver.push.unread``)."""

    def counts(self, snapshot: Any, user_id: str, room_id: str, upto_seq: int) -> Any:
        """``notifications``, ``highlights`` and ``threads`` (root → the two) of a user in a room."""


class Extent(NamedTuple):
    """The part of a room that a sync covers: events after ``since_seq`` (None: all) up to ``last_seq``."""

    since_seq: int | None
    since_root: bytes
    last_seq: int
    end_root: bytes


class JoinedResult(NamedTuple):
    """A joined room: its section, who else came into it, and whether the reader has newly joined it."""

    section: assemble.JoinedRoom
    came: set[str]
    newly: bool
    members_changed: bool
    nothing: bool
    """There is nothing in it that a waiting client should be told."""


class RoomSections:
    """Builds rooms of a sync. All methods read from the scope's snapshot and keep nothing."""

    def __init__(
        self,
        sights: Sights,
        ephemeral: RoomEphemeral,
        summaries: Summaries,
        unread: UnreadSource,
        sent_members: SentMembers,
    ) -> None:
        self._sights = sights
        self._ephemeral = ephemeral
        self._summaries = summaries
        self._unread = unread
        self._sent = sent_members

    # -- rooms.join ----------------------------------------------------------------------------------------------

    def joined(
        self,
        scope: Scope,
        membership: room_log.MembershipRecord,
        changes: RoomChanges,
        account_data: list[bytes] | None,
    ) -> JoinedResult | None:
        """A joined room; ``changes`` is what happened in it since the last sync (of no account for a first one)."""
        room_id = membership.room_id
        meta = room_log.room_meta(scope.view, room_id)
        if meta is None:
            return None
        extent = self._extent(scope, meta, changes)
        newly = (
            scope.since is not None
            and membership.position > scope.since
            and not self._was_joined(scope, meta.nid, extent)
        )
        whole = scope.since is None or newly
        if newly:
            extent = extent._replace(since_seq=None, since_root=b"")
        sight = self._sights.sight(scope.view, meta, scope.user_id)
        timeline = self._timeline(scope, meta, extent, sight, changes)
        if newly:
            # Events from before an earlier departure may be in the client's hands: it has to begin a new timeline.
            timeline = timeline._replace(limited=True)
        full = whole or scope.request.full_state
        section = assemble.JoinedRoom(self._dump_timeline(scope, timeline, sight))
        changed = self._add_state(scope, meta, section, extent, timeline, full)
        if full or self._summary_changed(scope, changed):
            section.summary = self._summaries.summary(scope, meta, extent.end_root)
        self._add_ephemeral(scope, room_id, section, changes, whole)
        if whole or changes.events or changes.own_receipt:
            self._add_unread(scope, room_id, section, extent.last_seq)
        if account_data:
            section.account_data = assemble.events(account_data)
        nothing = not (full or timeline.records or timeline.limited or changes.own_receipt or account_data) and (
            section.state is assemble.EMPTY_EVENTS
            and section.ephemeral is assemble.EMPTY_EVENTS
            and section.summary is None
        )
        members_changed = any(key[0] in _SHARING_TYPES for key in changed)
        came = self._came(scope, changed) if members_changed and scope.since is not None else set()
        return JoinedResult(section, came, newly, members_changed, nothing)

    def _was_joined(self, scope: Scope, room_nid: int, extent: Extent) -> bool:
        if not extent.since_root:
            return False
        return self._sights.standing(scope.view, room_nid, extent.since_root, scope.user_id).membership == "join"

    def _extent(self, scope: Scope, meta: Any, changes: RoomChanges) -> Extent:
        last_seq, end_root = meta.last_seq, meta.state_root
        if meta.last_position > scope.upto:
            last_seq, end_root = self._at(scope, meta, scope.upto)
        if scope.since is None:
            return Extent(None, b"", last_seq, end_root)
        if changes.notes is not None:
            if not changes.notes:
                return Extent(last_seq, end_root, last_seq, end_root)
            since_seq = changes.notes[0].seq - 1
            return Extent(since_seq, self._state_at(scope, meta, since_seq), last_seq, end_root)
        if meta.last_position <= scope.since:
            return Extent(last_seq, end_root, last_seq, end_root)
        since_seq, since_root = self._at(scope, meta, scope.since)
        return Extent(since_seq, since_root, last_seq, end_root)

    def _at(self, scope: Scope, meta: Any, position: int) -> tuple[int, bytes]:
        """The last sequence number at a position and the state there."""
        seq = event_log.last_seq_at(scope.view, meta.nid, meta.last_seq, position)
        return seq, self._state_at(scope, meta, seq)

    def _state_at(self, scope: Scope, meta: Any, seq: int) -> bytes:
        """Root of the room's state when this was the room's last event: what a client was told then."""
        record = event_log.event_at(scope.view, meta.nid, seq)
        return b"" if record is None else record.room_state

    def _timeline(
        self, scope: Scope, meta: Any, extent: Extent, sight: Sight, changes: RoomChanges | None
    ) -> Timeline:
        wanted = self._wanted(scope, meta, extent, sight)
        limit = scope.request.filter.timeline_limit
        if not scope.request.filter.timeline.wants_room(meta.room_id):
            return Timeline([], False, extent.last_seq + 1)
        records: Iterable[Any]
        if extent.since_seq is not None and extent.since_seq >= extent.last_seq:
            records = ()
        elif changes is not None and changes.notes and extent.since_seq is not None:
            records = [note.record for note in reversed(changes.notes) if note.seq <= extent.last_seq]
        else:
            first = meta.first_seq if extent.since_seq is None else extent.since_seq + 1
            records = event_log.room_slice(scope.view, meta.nid, first, extent.last_seq + 1, reverse=True)
        return choose(records, extent.last_seq, limit, wanted)

    def _wanted(self, scope: Scope, meta: Any, extent: Extent, sight: Sight) -> Any:
        wants, ignored = scope.request.filter.timeline, scope.ignored
        states = scope.states(meta.nid)
        # What holds in the state that the reader is being told anyway is no secret at its own place either.
        told = extent.end_root if sight.standing(extent.end_root).membership == "join" else b""

        def wanted(record: Any) -> bool:
            if record.flags & _HIDDEN:
                return False
            if record.sender in ignored and record.state_key is None:
                return False
            if not wants.wants(record.type, record.sender, lambda: has_url(record)):
                return False
            return sight.sees(
                record.seq, record.type, record.state_key, record.state_before, record.state_after
            ) or (
                record.state_key is not None
                and (
                    (record.type == MEMBER and record.state_key == scope.user_id)
                    or (told != b"" and states.get(told, record.type, record.state_key) == record.event_id)
                )
            )

        return wanted

    def _dump_timeline(self, scope: Scope, timeline: Timeline, sight: Sight) -> bytes:
        event = scope.renderer.timeline_event
        parts = [event(record, sight) for record in timeline.records]
        if scope.request.filter.event_fields is not None or scope.request.filter.federation_format:
            parts = [scope.shape(part, record) for part, record in zip(parts, timeline.records, strict=True)]
        return assemble.timeline(parts, timeline.limited, scope.cut(timeline.cut))

    # -- state ---------------------------------------------------------------------------------------------------

    def _add_state(
        self,
        scope: Scope,
        meta: room_log.RoomMeta,
        section: assemble.JoinedRoom | assemble.LeftRoom,
        extent: Extent,
        timeline: Timeline,
        full: bool,
    ) -> dict[StateKey, tuple[str | None, str | None]]:
        """Fill in ``state`` or ``state_after``; returns what changed since the last sync."""
        lazy = scope.request.filter.state.lazy_load_members
        start = timeline.records[0].state_before if timeline.records else extent.end_root
        states = scope.states(meta.nid)
        known = Span(extent.since_root, start, extent.end_root)
        changed = state_changes(states, known, lazy)
        span = Span(b"", start, extent.end_root) if full else known
        shown = state_changes(states, span, lazy) if full and extent.since_root else changed
        after = section.state_after = scope.request.use_state_after
        chosen = (
            state_for_end(shown)
            if after
            else state_for_start(states, span, shown, told_by(timeline.records))
        )
        if lazy:
            self._choose_members(scope, meta, chosen, span, timeline, full)
        section.state = assemble.events(list(self._state_events(scope, meta.room_id, chosen)))
        return changed

    def _choose_members(
        self,
        scope: Scope,
        meta: room_log.RoomMeta,
        chosen: dict[StateKey, str],
        span: Span,
        timeline: Timeline,
        full: bool,
    ) -> None:
        """Lazy loading: add the members that the reader needs for this timeline and was not sent before."""
        redundant = scope.request.filter.state.include_redundant_members
        root = span.end if scope.request.use_state_after else span.start
        users = {record.sender for record in timeline.records}
        if full:
            users.add(scope.user_id)
            users.update(self._summaries.heroes(scope, meta, span.end) or ())
        device_id, room_id = scope.request.device_id or "", meta.room_id
        states = scope.states(meta.nid)
        for user in users:
            event_id = states.get(root, MEMBER, user) if root else None
            if event_id is None or (MEMBER, user) in chosen:
                continue
            if redundant or not self._sent.knows(scope.user_id, device_id, room_id, user, event_id):
                chosen[MEMBER, user] = event_id
        for (type_, user), event_id in chosen.items():
            if type_ == MEMBER:
                self._sent.sent(scope.user_id, device_id, room_id, user, event_id)
        for record in timeline.records:
            if record.type == MEMBER and record.state_key is not None:
                self._sent.sent(scope.user_id, device_id, room_id, record.state_key, record.event_id)

    def _state_events(self, scope: Scope, room_id: str, chosen: dict[StateKey, str]) -> Iterator[bytes]:
        wants = scope.request.filter.state
        if not wants.wants_room(room_id):
            return
        for key, event_id in chosen.items():
            if not wants.wants_type(key[0]):
                continue
            record = event_log.event_by_id(scope.view, event_id)
            if record is not None and wants.wants(record.type, record.sender, lambda: has_url(record)):  # noqa: B023
                yield scope.shape(scope.renderer.event(record), record)

    def _summary_changed(self, scope: Scope, changed: dict[StateKey, tuple[str | None, str | None]]) -> bool:
        """Whether counts or heroes may differ: a member's new display name alone changes neither."""
        membership = self._sights.membership
        return any(
            type_ in _NAMING_TYPES
            or (type_ == MEMBER and membership(scope.view, old) != membership(scope.view, new))
            for (type_, _), (old, new) in changed.items()
        )

    def _came(self, scope: Scope, changed: dict[StateKey, tuple[str | None, str | None]]) -> set[str]:
        """Who is joined now and was not then."""
        joined = self._sights.membership
        return {
            user
            for (type_, user), (old, new) in changed.items()
            if type_ == MEMBER and joined(scope.view, new) == "join" and joined(scope.view, old) != "join"
        }

    # -- ephemeral and counts ------------------------------------------------------------------------------------

    def _add_ephemeral(
        self, scope: Scope, room_id: str, section: assemble.JoinedRoom, changes: RoomChanges, whole: bool
    ) -> None:
        wants = scope.request.filter.ephemeral
        if not wants.wants_room(room_id):
            return
        parts: list[bytes] = []
        if (whole or changes.receipts) and wants.wants_type("m.receipt"):
            parts += self._ephemeral.receipts(scope, room_id, None if whole else scope.since)
        if wants.wants_type("m.typing") and (
            changes.typing if not whole else self._ephemeral.anyone_typing(room_id)
        ):
            parts.append(self._ephemeral.typing(room_id))
        section.ephemeral = assemble.events(parts)

    def _add_unread(self, scope: Scope, room_id: str, section: assemble.JoinedRoom, last_seq: int) -> None:
        unread = self._unread.counts(scope.view, scope.user_id, room_id, last_seq)
        if scope.request.filter.timeline.unread_thread_notifications:
            section.unread = assemble.counts(unread.notifications, unread.highlights)
            section.unread_threads = assemble.thread_counts(unread.threads)
        else:
            threads = unread.threads.values()
            section.unread = assemble.counts(
                unread.notifications + sum(pair[0] for pair in threads),
                unread.highlights + sum(pair[1] for pair in threads),
            )

    # -- rooms.leave, rooms.invite, rooms.knock ------------------------------------------------------------------

    def left(
        self, scope: Scope, membership: room_log.MembershipRecord, account_data: list[bytes] | None
    ) -> assemble.LeftRoom | None:
        """A room that the reader left or was removed from: nothing from behind the departure."""
        meta = room_log.room_meta(scope.view, membership.room_id)
        departure = event_log.event_by_id(scope.view, membership.event_id)
        if departure is None:
            return None
        if meta is None or departure.seq is None:
            # Never in the room as far as this server knows (a refused invitation from elsewhere).
            event = scope.shape(scope.renderer.event(departure, membership.membership), departure)
            return assemble.LeftRoom(assemble.timeline([event], False, scope.cut(0)))
        extent = Extent(None, b"", departure.seq, departure.state_after)
        if scope.since is not None:
            since_seq, since_root = self._at(scope, meta, scope.since)
            if self._sights.standing(scope.view, meta.nid, since_root, scope.user_id).membership == "join":
                extent = extent._replace(since_seq=since_seq, since_root=since_root)
        sight = self._sights.sight(scope.view, meta, scope.user_id)
        was_member = self._sights.standing(
            scope.view, meta.nid, departure.state_before, scope.user_id
        ).membership == "join"
        if not was_member and not extent.since_root:
            timeline = Timeline([departure], False, departure.seq)
            return assemble.LeftRoom(self._dump_timeline(scope, timeline, sight))
        timeline = self._timeline(scope, meta, extent, sight, None)
        section = assemble.LeftRoom(self._dump_timeline(scope, timeline, sight))
        self._add_state(scope, meta, section, extent, timeline, scope.request.full_state or not extent.since_root)
        if account_data:
            section.account_data = assemble.events(account_data)
        return section

    def stripped(self, scope: Scope, membership: room_log.MembershipRecord, key: str) -> bytes | None:
        """An invitation (``invite_state``) or a knock (``knock_state``): the stripped state with the member event."""
        event = event_log.event_by_id(scope.view, membership.event_id)
        if event is None:
            return None
        parts = list(self._stripped_parts(scope, membership, event))
        unsigned = b'{"age":%d}' % (scope.now_ms - event.origin_server_ts)
        parts.append(event.client_json(False, unsigned))
        return assemble.stripped_room(key, parts)

    def _stripped_parts(self, scope: Scope, membership: Any, event: Any) -> Iterator[bytes]:
        if event.seq is None:
            for part in orjson.loads(membership.stripped_state or b"[]"):
                yield orjson.dumps(part)
            return
        states = scope.states(event.room_nid)
        for type_ in STRIPPED:
            event_id = states.get(event.state_after, type_, "")
            record = None if event_id is None else event_log.event_by_id(scope.view, event_id)
            if record is not None:
                yield assemble.stripped_event(type_, "", record.sender, bytes(record.content_json))


_SHARING_TYPES = frozenset({MEMBER, "m.room.encryption"})
_HIDDEN = event_log.REJECTED | event_log.SOFT_FAILED
_NAMING_TYPES = frozenset({"m.room.name", "m.room.canonical_alias"})
