"""Answers that need no reading of their own: nothing is new, or only what is the same for everybody in a room.

When somebody types or reads in a big room, all its members are answered at the same moment, and with the same bytes.
The section of the room is built once and handed to all of them. Whatever differs between readers (events with their
unread counts, account data, the reader's own receipts, ignored users, filters) is left to `SyncReader`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from homeserver.feed import PRIVATE, Feed
from homeserver.rooms.memberships import Memberships
from homeserver.sync import assemble
from homeserver.sync.assemble import SharedBody
from homeserver.sync.changes import SCAN, RoomChanges
from homeserver.sync.ignored import IgnoredUsers
from homeserver.sync.reader import KeyCountSource
from homeserver.sync.room_sections import RoomSections
from homeserver.sync.scope import Scope, SyncRequest
from homeserver.sync.tokens import sync_token
from storage.log.append import Kind, Log
from storage.log.rooms import MembershipRecord

MAX_STRETCHES = 1_000
"""Positions from which waiting devices go on, for which the news is remembered."""


class QuickReading(NamedTuple):
    """An answer and the position that it was read at."""

    body: SharedBody
    position: int


class News:
    """What was released after one position. ``own`` are the users with something that is not for all.

    ``sections`` are rooms as JSON bytes with their keys, by room and form of the state; None is a room without
    anything to tell.
    """

    __slots__ = ("own", "rooms", "sections")

    def __init__(self) -> None:
        self.own: set[str] = set()
        self.rooms: dict[str, RoomChanges] = {}
        self.sections: dict[tuple[str, bool], bytes | None] = {}


class QuickReader:
    """Reads the answers that are cheap. Belongs to the reactor thread."""

    def __init__(
        self,
        log: Log,
        feed: Feed,
        memberships: Memberships,
        rooms: RoomSections,
        ignored: IgnoredUsers,
        key_counts: KeyCountSource,
    ) -> None:
        self._log = log
        self._feed = feed
        self._memberships = memberships
        self._rooms = rooms
        self._ignored = ignored
        self._key_counts = key_counts
        self._upto = -1
        self._news: dict[int, News | None] = {}

    def read(self, request: SyncRequest) -> QuickReading | None:
        """The answer as of now, the same that `SyncReader.read` gives; None when that has to be asked."""
        since, device_id = request.since, request.device_id
        if since is None or device_id is None or request.full_state or since.inbox < since.position:
            return None
        counts = self._key_counts.cached(request.user_id, device_id)
        if counts is None:
            return None
        upto = self._log.position
        rooms = _NO_ROOMS if since.position == upto else self._rooms_after(request, since.position, upto)
        if rooms is None:
            return None
        return QuickReading(SharedBody(sync_token(self._log.epoch, upto), rooms, counts), upto)

    def _rooms_after(self, request: SyncRequest, after: int, upto: int) -> Sequence[bytes] | None:
        """The rooms with news; None when something is new that is not for all."""
        news = self._news_after(after, upto)
        if news is None or request.user_id in news.own:
            return None
        joined = self._memberships.joined_rooms(request.user_id)
        rooms: list[bytes] = []
        for room_id, changes in news.rooms.items():
            record = joined.get(room_id)
            if record is None:
                continue
            if not request.filter.plain or record.position > after or self._ignored.known(request.user_id) != _NOBODY:
                return None
            section = self._section(request, news, record, changes, upto)
            if section is not None:
                rooms.append(section)
        return rooms

    def _news_after(self, after: int, upto: int) -> News | None:
        if self._upto != upto:
            self._upto = upto
            self._news.clear()
        try:
            return self._news[after]
        except KeyError:
            pass
        if len(self._news) >= MAX_STRETCHES:
            self._news.clear()
        news = self._news[after] = self._gather(after, upto)
        return news

    def _gather(self, after: int, upto: int) -> News | None:
        """What the ring has after a position; None if that is too much, or of kinds that differ between readers."""
        entries = self._feed.entries_after(after)
        if entries is None or self._feed.position != upto or len(entries) > SCAN:
            return None
        news = News()
        for entry in entries:
            kind = entry.kind
            if kind in _PERSONAL or (kind == Kind.RECEIPT and entry.ref == PRIVATE):
                news.own.add(entry.user_id)
            elif kind == Kind.TYPING or kind == Kind.RECEIPT:
                changes = news.rooms.setdefault(entry.room_id, RoomChanges(notes=[]))
                if kind == Kind.TYPING:
                    changes.typing = True
                else:
                    # One's own receipt comes with new unread counts.
                    changes.receipts = True
                    news.own.add(entry.user_id)
            else:
                return None
        return news

    def _section(
        self, request: SyncRequest, news: News, record: MembershipRecord, changes: RoomChanges, upto: int
    ) -> bytes | None:
        key = (record.room_id, request.use_state_after)
        try:
            return news.sections[key]
        except KeyError:
            with self._log.snapshot() as view:
                scope: Any = Scope(request, view, self._log.epoch, upto, _NOBODY)
                result = self._rooms.joined(scope, record, changes, None)
            section = None
            if result is not None and not result.nothing:
                section = assemble.keyed_room(record.room_id, result.section.dump())
            news.sections[key] = section
            return section


_NO_ROOMS: Sequence[bytes] = ()
_NOBODY: frozenset[str] = frozenset()
_PERSONAL = frozenset({Kind.ACCOUNT_DATA, Kind.TO_DEVICE, Kind.KEY_COUNTS})
