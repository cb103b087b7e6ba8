"""Answer one sync from the log: what a device lacks after the position it names.

Everything of one answer is read as of one position. An answer with many rooms is read in several turns of the
reactor, so that a big account does not keep others waiting; what is newer than the position stays out of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from homeserver.feed import Feed
from homeserver.keys.key_counts import KeyCounts
from homeserver.rooms.memberships import Memberships
from homeserver.sync.assemble import Body
from homeserver.sync.changes import Changes, RoomChanges, changes_after
from homeserver.sync.ignored import IgnoredUsers
from homeserver.sync.room_sections import RoomSections
from homeserver.sync.scope import Scope, SyncRequest
from homeserver.sync.sent_members import SentMembers
from homeserver.sync.tokens import sync_token
from homeserver.sync.user_sections import AccountData, UserSections
from storage.log.append import Log
from storage.log.rooms import MembershipRecord
from storage.log.view import Snapshot

_report = Logger()

ROOMS_IN_TURN = 20
"""Rooms read in one turn of the reactor."""


class KeyCountSource(Protocol):
    """One-time key counts of devices (``homeserver.keys.key_counts.KeyCountCache``)."""

    def cached(self, user_id: str, device_id: str) -> KeyCounts | None:
        """The counts, if in memory."""

    async def get(self, user_id: str, device_id: str) -> KeyCounts:
        """The counts."""


class DeviceListSource(Protocol):
    """Whose device lists changed (``homeserver.keys.list_changes.DeviceListChanges``)."""

    def between(self, snapshot: Snapshot, user_id: str, after: int, upto: int) -> tuple[list[str], list[str]]:
        """``changed`` and ``left`` between two positions."""


class _Task(NamedTuple):
    """One room to be read."""

    membership: MembershipRecord
    changes: RoomChanges


class Reading(NamedTuple):
    """An answer and the position that it was read at."""

    body: Body
    position: int


class _Seen:
    """What reading the rooms found out for the other sections."""

    __slots__ = ("came", "newly", "sharing_changed")

    def __init__(self) -> None:
        self.came: set[str] = set()
        self.newly: list[str] = []
        self.sharing_changed = False


_NOTHING_NEW = AccountData([], {})


class SyncReader:
    """Reads answers. Belongs to the reactor thread."""

    def __init__(
        self,
        log: Log,
        feed: Feed,
        memberships: Memberships,
        rooms: RoomSections,
        users: UserSections,
        ignored: IgnoredUsers,
        key_counts: KeyCountSource,
        device_lists: DeviceListSource,
        sent_members: SentMembers,
        clock: IReactorTime,
    ) -> None:
        self._log = log
        self._feed = feed
        self._memberships = memberships
        self._rooms = rooms
        self._users = users
        self._ignored = ignored
        self._key_counts = key_counts
        self._device_lists = device_lists
        self._sent_members = sent_members
        self._clock = clock

    async def read(self, request: SyncRequest) -> Reading:
        """The answer to a sync, as of now."""
        counts = await self._counts(request)
        upto = self._log.position
        body = Body("")
        if counts is not None:
            body.key_counts, body.fallback_types = counts
        seen = _Seen()
        changes = self._changes(request)
        if request.since is None and request.device_id is not None:
            self._sent_members.forget(request.user_id, request.device_id)
        with self._log.snapshot() as view:
            scope = self._scope(request, view, upto)
            account = self._account_data(scope, changes)
            body.account_data = account.account
            tasks = list(self._tasks(scope, changes, account.rooms))
            self._read_rooms(scope, body, tasks[:ROOMS_IN_TURN], account.rooms, seen)
            if len(tasks) <= ROOMS_IN_TURN:
                self._finish(scope, body, changes, seen)
                return Reading(body, upto)
        for start in range(ROOMS_IN_TURN, len(tasks), ROOMS_IN_TURN):
            await deferLater(self._clock, 0, _nothing)
            with self._log.snapshot() as view:
                scope = self._scope(request, view, upto)
                self._read_rooms(scope, body, tasks[start : start + ROOMS_IN_TURN], account.rooms, seen)
                if start + ROOMS_IN_TURN >= len(tasks):
                    self._finish(scope, body, changes, seen)
        return Reading(body, upto)

    def _scope(self, request: SyncRequest, view: Snapshot, upto: int) -> Scope:
        return Scope(request, view, self._log.epoch, upto, self._ignored.of(view, request.user_id))

    async def _counts(self, request: SyncRequest) -> KeyCounts | None:
        if request.device_id is None:
            return None
        counts = self._key_counts.cached(request.user_id, request.device_id)
        return counts if counts is not None else await self._key_counts.get(request.user_id, request.device_id)

    def _changes(self, request: SyncRequest) -> Changes | None:
        if request.since is None:
            return None
        joined = self._memberships.joined_rooms(request.user_id)
        return changes_after(self._feed, joined, request.user_id, request.device_id, request.since.position)

    def _account_data(self, scope: Scope, changes: Changes | None) -> AccountData:
        if changes is not None and not changes.account_data:
            return _NOTHING_NEW
        return self._users.account_data(scope)

    def _tasks(
        self, scope: Scope, changes: Changes | None, account_data: Mapping[str, Any]
    ) -> Iterator[_Task]:
        """Which rooms the answer has to look at."""
        wanted = scope.request.filter.rooms
        since, full = scope.since, scope.request.full_state
        changed: Mapping[str, RoomChanges] = {} if changes is None else changes.rooms
        for room_id, record in self._memberships.rooms_of(scope.user_id).items():
            news = changed.get(room_id)
            if since is not None and news is None and record.position <= since:
                if room_id not in account_data and not (full and record.membership == "join"):
                    continue
                # Nothing happened in the room itself: no notes, but known to be none.
                news = RoomChanges(notes=[])
            if wanted.everything or wanted.wants_room(room_id):
                yield _Task(record, news or RoomChanges(events=True))

    def _read_rooms(
        self, scope: Scope, body: Body, tasks: list[_Task], account_data: Mapping[str, list[bytes]], seen: _Seen
    ) -> None:
        for record, changes in tasks:
            data = account_data.get(record.room_id)
            try:
                if record.membership == "join":
                    self._read_joined(scope, body, record, changes, data, seen)
                elif scope.since is None or record.position > scope.since:
                    self._read_other(scope, body, record, data, seen)
            except ValueError:
                _report.failure("{room_id} is damaged and left out of syncs: run check-log", room_id=record.room_id)

    def _read_joined(
        self,
        scope: Scope,
        body: Body,
        record: MembershipRecord,
        changes: RoomChanges,
        account_data: list[bytes] | None,
        seen: _Seen,
    ) -> None:
        result = self._rooms.joined(scope, record, changes, account_data)
        if result is None:
            return
        if not result.nothing:
            body.join[record.room_id] = result.section.dump()
        seen.came |= result.came
        seen.sharing_changed = seen.sharing_changed or result.members_changed or result.newly
        if result.newly:
            seen.newly.append(record.room_id)

    def _read_other(
        self, scope: Scope, body: Body, record: MembershipRecord, account_data: list[bytes] | None, seen: _Seen
    ) -> None:
        if record.position > scope.upto:
            return
        if record.membership == "invite":
            room = None
            if record.sender not in scope.ignored:
                room = self._rooms.stripped(scope, record, "invite_state")
            if room is not None:
                body.invite[record.room_id] = room
        elif record.membership == "knock":
            room = self._rooms.stripped(scope, record, "knock_state")
            if room is not None:
                body.knock[record.room_id] = room
        elif scope.since is not None or scope.request.filter.include_leave:
            left = self._rooms.left(scope, record, account_data)
            seen.sharing_changed = True
            if left is not None:
                body.leave[record.room_id] = left.dump()

    def _finish(self, scope: Scope, body: Body, changes: Changes | None, seen: _Seen) -> None:
        """The sections about users and the device, once the rooms are known."""
        request = scope.request
        inbox, since = scope.upto, request.since
        if changes is None or changes.inbox or (since is not None and since.inbox < since.position):
            body.to_device, inbox = self._users.to_device(scope)
        if changes is None:
            body.presence = self._users.presence(scope, (), (), ())
        elif changes.presence or seen.came or seen.newly:
            body.presence = self._users.presence(scope, changes.presence, seen.came, seen.newly)
        if changes is not None and scope.since is not None and (changes.devices or seen.sharing_changed):
            body.devices_changed, body.devices_left = self._device_lists.between(
                scope.view, scope.user_id, scope.since, scope.upto
            )
        body.key_counts_changed = changes is not None and changes.key_counts
        body.next_batch = sync_token(scope.epoch, scope.upto, inbox)


def _nothing() -> None:
    """For waiting until the next turn."""
