"""Events that notified a user, found by walking the log backwards (Client-Server API, "Listing Notifications")."""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from homeserver.push.unread import Unread, read_up_to, thread_of_event
from storage.log.append import Kind, unpack_entry
from storage.log.catalog import EVENTS, LOG
from storage.log.events import EventRecord
from storage.log.keys import from_u64, u64
from storage.log.receipts import receipts_of_user
from storage.log.rooms import RoomMeta, room_meta
from storage.log.view import Snapshot

MAX_ENTRIES = 5000
"""Log entries looked at for one answer. An answer that stops there may be empty and still have a `next_token`."""


class JoinedRooms(Protocol):
    """The user's rooms; see :class:`homeserver.rooms.memberships.Memberships`."""

    def joined_rooms(self, user_id: str) -> Mapping[str, Any]:
        """Rooms of a user."""


class Notified:
    """Lists notifications of the rooms that the user is joined to now, newest first."""

    def __init__(self, members: JoinedRooms, unread: Unread) -> None:
        self._members = members
        self._unread = unread

    def before(
        self, snapshot: Snapshot, user_id: str, before: int, limit: int, only_highlights: bool
    ) -> tuple[list[dict[str, Any]], int | None]:
        """Up to ``limit`` notifications before the position ``before``, and the position to continue from."""
        found: list[dict[str, Any]] = []
        rooms: dict[str, _Room | None] = dict.fromkeys(self._members.joined_rooms(user_id))
        seen = 0
        for key, value in snapshot.range(LOG, u64(0), u64(before), reverse=True, limit=MAX_ENTRIES):
            seen += 1
            if value[0] != Kind.EVENT:
                continue
            entry = unpack_entry(from_u64(key), value)
            if entry.room_id not in rooms:
                continue
            room = rooms[entry.room_id]
            if room is None:
                room = rooms[entry.room_id] = _Room(snapshot, self._unread, user_id, entry.room_id)
            notification = room.notification(snapshot, entry.ref, only_highlights)
            if notification is not None:
                found.append(notification)
                if len(found) == limit:
                    return found, entry.position
        return found, from_u64(key) if seen == MAX_ENTRIES else None


class _Room:
    """One room as the user sees it while the log is walked."""

    def __init__(self, snapshot: Snapshot, unread: Unread, user_id: str, room_id: str) -> None:
        self._unread = unread
        self._user_id = user_id
        self._meta: RoomMeta | None = room_meta(snapshot, room_id)
        self._joined_at = unread.joined_at(snapshot, user_id, room_id)
        self._receipts = read_up_to(receipts_of_user(snapshot, room_id, user_id))

    def notification(self, snapshot: Snapshot, ref: bytes, only_highlights: bool) -> dict[str, Any] | None:
        data = snapshot.get(EVENTS, ref)
        if data is None or self._meta is None:
            return None
        record = EventRecord(data)
        seq = record.seq or 0
        if seq <= self._joined_at or record.rejected or record.soft_failed or record.redacted:
            return None
        outcome = self._unread.judge(snapshot, self._user_id, self._meta, record)
        if not outcome.notify or (only_highlights and not outcome.highlight):
            return None
        thread = thread_of_event(snapshot, record)
        return {
            "actions": outcome.actions,
            "event": orjson.Fragment(record.client_json(False)),
            "read": seq <= max(self._receipts.get("", 0), self._receipts.get(thread, 0)),
            "room_id": self._meta.room_id,
            "ts": record.origin_server_ts,
        }
