"""How many messages of a room a user has not read (Client-Server API, "Receiving notifications").

Counted when somebody asks. For each user and room the notifying events since the last receipt are remembered up to a
place in the room; the next question judges only the events after that place, and a receipt only takes events away.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from federation.rules.power_levels import PowerLevels
from homeserver.push.push_rules import PushRules
from homeserver.push.rules import FlatEvent, Outcome, Person, evaluate
from storage.log import state_map
from storage.log.events import EventRecord, event_by_id, room_slice
from storage.log.receipts import Receipt, receipts_of_user
from storage.log.rooms import RoomMeta, membership_in, room_meta
from storage.log.view import Snapshot

MAIN = "main"
"""The thread ID of events that are in no thread."""

MAX_SCAN = 2000
"""How many of a room's newest events are judged at most for somebody who has not been counted yet."""

MAX_UNREAD = 5000
"""Notifying events that are remembered for one user and room; the count stops there."""

MAX_HOPS = 3
"""How many relations are followed to find an event's thread (Client-Server API, "Threaded read receipts")."""


class UnreadCounts(NamedTuple):
    """Of the main timeline; ``threads`` has (notifications, highlights) by thread root."""

    notifications: int
    highlights: int
    threads: dict[str, tuple[int, int]]


NONE = UnreadCounts(0, 0, {})


class _Unread(NamedTuple):
    seq: int
    thread: str
    highlight: bool


class _Counted:
    """The notifying events after the receipts, judged up to ``seq``."""

    __slots__ = ("member_event_id", "seq", "unread")

    def __init__(self, seq: int, member_event_id: str) -> None:
        self.seq = seq
        self.member_event_id = member_event_id
        self.unread: list[_Unread] = []


class Unread:
    """Counts for `/sync`; remembers at most ``limit`` pairs of user and room."""

    def __init__(
        self, rules: PushRules, power_levels: Callable[[str], PowerLevels], limit: int = 50_000, events: int = 4096
    ) -> None:
        """``power_levels`` gives the levels in force in a room; asked only for events that mention the room."""
        self._rules = rules
        self._power_levels = power_levels
        self._limit = limit
        self._counted: OrderedDict[tuple[str, str], _Counted] = OrderedDict()
        self._events: OrderedDict[tuple[int, int], FlatEvent] = OrderedDict()
        self._max_events = events

    def counts(self, snapshot: Snapshot, user_id: str, room_id: str, upto_seq: int) -> UnreadCounts:
        """What a joined user has not read of the events up to ``upto_seq`` (inclusive); nothing for others."""
        meta = room_meta(snapshot, room_id)
        record = membership_in(snapshot, user_id, room_id)
        if meta is None or record is None or record.membership != "join":
            self._counted.pop((user_id, room_id), None)
            return NONE
        receipts = read_up_to(receipts_of_user(snapshot, room_id, user_id))
        counted = self._state(snapshot, meta, user_id, record.event_id, receipts, upto_seq)
        if counted.seq < upto_seq:
            self._judge(snapshot, meta, user_id, counted, upto_seq)
        everywhere = receipts.get("", 0)
        counted.unread = [
            one for one in counted.unread if one.seq > everywhere and one.seq > receipts.get(one.thread, 0)
        ]
        return _summed(one for one in counted.unread if one.seq <= upto_seq)

    def judge(self, snapshot: Snapshot, user_id: str, meta: RoomMeta, record: EventRecord) -> Outcome:
        """What the user's rules say of one stored event."""
        event = self._event(meta, record)
        person = Person(user_id, lambda: _display_name(snapshot, meta, user_id))
        return evaluate(self._rules.compiled(snapshot, user_id), event, person)

    def joined_at(self, snapshot: Snapshot, user_id: str, room_id: str) -> int:
        """The place in the room from which on events count for a joined user."""
        meta = room_meta(snapshot, room_id)
        record = membership_in(snapshot, user_id, room_id)
        return 0 if meta is None or record is None else _joined_at(snapshot, meta, user_id, record.event_id)

    def forget_room(self, room_id: str) -> None:
        """A room was deleted: its events get other places if it is entered again."""
        for key in [key for key in self._counted if key[1] == room_id]:
            del self._counted[key]

    def _state(
        self,
        snapshot: Snapshot,
        meta: RoomMeta,
        user_id: str,
        member_event_id: str,
        receipts: Mapping[str, int],
        upto_seq: int,
    ) -> _Counted:
        key = (user_id, meta.room_id)
        counted = self._counted.get(key)
        if counted is not None:
            self._counted.move_to_end(key)
            if counted.member_event_id != member_event_id:
                # Perhaps the user left and came back without anybody counting in between.
                joined_at = _joined_at(snapshot, meta, user_id, member_event_id)
                counted.seq = max(counted.seq, joined_at)
                counted.unread = [one for one in counted.unread if one.seq > joined_at]
                counted.member_event_id = member_event_id
            return counted
        joined_at = _joined_at(snapshot, meta, user_id, member_event_id)
        start = max(joined_at, receipts.get("", 0), upto_seq - MAX_SCAN)
        counted = self._counted[key] = _Counted(start, member_event_id)
        if len(self._counted) > self._limit:
            self._counted.popitem(last=False)
        return counted

    def _judge(self, snapshot: Snapshot, meta: RoomMeta, user_id: str, counted: _Counted, upto_seq: int) -> None:
        rules = self._rules.compiled(snapshot, user_id)
        person = Person(user_id, lambda: _display_name(snapshot, meta, user_id))
        start = max(counted.seq, upto_seq - MAX_SCAN)
        for record in room_slice(snapshot, meta.nid, start + 1, upto_seq + 1):
            if record.flags and (record.rejected or record.soft_failed or record.redacted):
                continue
            outcome = evaluate(rules, self._event(meta, record), person)
            if outcome.notify and len(counted.unread) < MAX_UNREAD and record.seq is not None:
                thread = thread_of_event(snapshot, record)
                counted.unread.append(_Unread(record.seq, thread, outcome.highlight))
        counted.seq = upto_seq

    def _event(self, meta: RoomMeta, record: EventRecord) -> FlatEvent:
        """The event made ready, shared by all users who are judged soon after each other."""
        key = (record.room_nid, record.seq or 0)
        event = self._events.get(key)
        if event is None:
            members, room_id, sender = meta.joined, meta.room_id, record.sender
            fields = {
                "type": record.type,
                "sender": sender,
                "room_id": room_id,
                "event_id": record.event_id,
                "content": orjson.loads(record.content_json),
                "origin_server_ts": record.origin_server_ts,
            }
            if (state_key := record.state_key) is not None:
                fields["state_key"] = state_key
            event = FlatEvent(fields, lambda: members, lambda what: self._may_notify(room_id, sender, what))
            self._events[key] = event
            if len(self._events) > self._max_events:
                self._events.popitem(last=False)
        return event

    def _may_notify(self, room_id: str, sender: str, what: str) -> bool:
        levels = self._power_levels(room_id)
        return levels.user(sender) >= levels.notification(what)


def read_up_to(receipts: Iterable[Receipt]) -> dict[str, int]:
    """How far a user has read, by thread (``""``: everywhere): the further of the public and the private receipt."""
    found: dict[str, int] = {}
    for receipt in receipts:
        if receipt.type in ("m.read", "m.read.private"):
            found[receipt.thread] = max(found.get(receipt.thread, 0), receipt.seq)
    return found


def thread_of_event(snapshot: Snapshot, record: EventRecord) -> str:
    """The root of the thread that an event is in, by itself or by what it relates to; ``main`` for none."""
    for _ in range(MAX_HOPS):
        if b"m.relates_to" not in record.content_json:
            return MAIN
        relation: Any = orjson.loads(record.content_json).get("m.relates_to")
        parent_id = relation.get("event_id") if type(relation) is dict else None
        if type(parent_id) is not str:
            return MAIN
        if relation.get("rel_type") == "m.thread":
            return parent_id
        parent = event_by_id(snapshot, parent_id)
        if parent is None or parent.room_nid != record.room_nid:
            return MAIN
        record = parent
    return MAIN


def _summed(unread: Iterable[_Unread]) -> UnreadCounts:
    threads: dict[str, tuple[int, int]] = {}
    for _, thread, highlight in unread:
        notifications, highlights = threads.get(thread, (0, 0))
        threads[thread] = (notifications + 1, highlights + highlight)
    return UnreadCounts(*threads.pop(MAIN, (0, 0)), threads)


def _joined_at(snapshot: Snapshot, meta: RoomMeta, user_id: str, member_event_id: str) -> int:
    """The place at which the user joined: a profile change in between is no new joining."""
    record = event_by_id(snapshot, member_event_id)
    load = state_map.loader(snapshot, meta.nid)
    for _ in range(100):
        if record is None or record.seq is None:
            return 0
        before = state_map.get(load, record.state_before, "m.room.member", user_id) if record.state_before else None
        former = None if before is None else event_by_id(snapshot, before)
        if former is None or orjson.loads(former.content_json).get("membership") != "join":
            return record.seq
        record = former
    return record.seq or 0 if record is not None else 0


def _display_name(snapshot: Snapshot, meta: RoomMeta, user_id: str) -> str | None:
    load = state_map.loader(snapshot, meta.nid)
    event_id = state_map.get(load, meta.state_root, "m.room.member", user_id)
    record = None if event_id is None else event_by_id(snapshot, event_id)
    name = None if record is None else orjson.loads(record.content_json).get("displayname")
    return name if type(name) is str else None
