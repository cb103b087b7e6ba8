"""What changed for one device after a position: which rooms, and which of the other sections of a sync.

Three sources, cheapest first: the feed's ring of recent entries; the feed's last position for each room and user;
and, for positions from before this process started, the log itself (``unsure``: whoever reads a room has to look).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from homeserver.feed import PRIVATE, Feed
from storage.log.append import Kind

SCAN = 64
"""Entries of the ring that are always looked at one by one; beyond that, four for each room of the user."""


@dataclass(slots=True)
class RoomChanges:
    """What changed in one joined room.

    ``notes`` are the notes of all new events in their order, if the ring had them all; else None: read the log.
    """

    events: bool = False
    receipts: bool = False
    own_receipt: bool = False
    typing: bool = False
    notes: list[Any] | None = None


@dataclass(slots=True)
class Changes:
    """What changed for one device. ``presence`` are users with news, not yet asked whether they share a room;
    ``devices`` whether any user's devices changed."""

    rooms: dict[str, RoomChanges] = field(default_factory=dict)
    account_data: bool = False
    inbox: bool = False
    key_counts: bool = False
    presence: set[str] = field(default_factory=set)
    devices: bool = False
    unsure: bool = False


def changes_after(
    feed: Feed, joined: Mapping[str, Any], user_id: str, device_id: str | None, since: int
) -> Changes:
    """What changed after position ``since`` for a device of a user who is joined to the rooms ``joined``."""
    entries = feed.entries_after(since)
    if entries is not None and len(entries) <= SCAN + 4 * len(joined):
        return _from_ring(entries, joined, user_id, device_id)
    return _from_positions(feed, joined, user_id, device_id, since)


def _from_ring(entries: Any, joined: Mapping[str, Any], user_id: str, device_id: str | None) -> Changes:
    changes = Changes()
    rewritten: set[str] = set()
    for entry in entries:
        kind = entry.kind
        if kind == Kind.EVENT or kind == Kind.TYPING or kind == Kind.RECEIPT:
            if entry.room_id in joined:
                _note_room(changes, entry, kind, user_id)
        elif kind == Kind.PRESENCE:
            changes.presence.add(entry.user_id)
        elif kind == Kind.DEVICE_LIST:
            # With a ref it is a change that only one viewer sees.
            changes.devices = changes.devices or not entry.ref or entry.user_id == user_id
        elif kind == Kind.REDACTION:
            rewritten.add(entry.room_id)
        elif entry.user_id == user_id:
            if kind == Kind.ACCOUNT_DATA:
                changes.account_data = True
            elif kind == Kind.TO_DEVICE:
                changes.inbox = changes.inbox or entry.device_id == device_id
            elif kind == Kind.KEY_COUNTS:
                changes.key_counts = changes.key_counts or entry.device_id == device_id
    for room_id in rewritten:
        # Notes are from before the redaction; the log has what may be shown.
        if (room := changes.rooms.get(room_id)) is not None:
            room.notes = None
    return changes


def _note_room(changes: Changes, entry: Any, kind: Kind, user_id: str) -> None:
    room = changes.rooms.get(entry.room_id)
    if room is None:
        if kind == Kind.RECEIPT and entry.ref == PRIVATE and entry.user_id != user_id:
            return
        room = changes.rooms[entry.room_id] = RoomChanges(notes=[])
    if kind == Kind.EVENT:
        room.events = True
        if room.notes is not None and entry.note is not None:
            room.notes.append(entry.note)
        else:
            room.notes = None
    elif kind == Kind.TYPING:
        room.typing = True
    elif entry.user_id == user_id:
        room.receipts = room.own_receipt = True
    elif entry.ref != PRIVATE:
        room.receipts = True


def _from_positions(
    feed: Feed, joined: Mapping[str, Any], user_id: str, device_id: str | None, since: int
) -> Changes:
    unsure = since < feed.start_position
    changes = Changes(
        account_data=unsure or feed.user_account_data.get(user_id, 0) > since,
        inbox=unsure or feed.inboxes.get((user_id, device_id or ""), 0) > since,
        key_counts=True,
        presence={user for user, position in feed.user_presence.items() if position > since},
        devices=unsure or feed.last_device_list > since,
        unsure=unsure,
    )
    for room_id in joined:
        events = unsure or feed.room_events.get(room_id, 0) > since
        receipts = unsure or feed.room_receipts.get(room_id, 0) > since
        typing = feed.room_typing.get(room_id, 0) > since
        if events or receipts or typing:
            changes.rooms[room_id] = RoomChanges(events, receipts, receipts, typing)
    return changes
