"""From PostgreSQL's outbox to the log, and what clients are told of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from homeserver.keys.bring import DeviceChanges
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.keys.outbox_follower import OutboxFollower
from homeserver.rooms.notes import EventNote
from storage.log import inbox, read
from storage.log.append import Entry, Kind, Log
from storage.log.catalog import FOLLOWERS
from storage.log.device_lists import put_change, put_private_change
from storage.memory import MemoryLog
from storage.tables import outbox
from storage.tables.database import Database

ME, BOB, CAROL = "@me:here", "@bob:here", "@carol:far"


class Here:
    def __init__(self, database: Database, log: Log) -> None:
        self.database, self.log = database, log
        self.released: list[Entry] = []
        log.on_release = lambda position, entries: self.released.extend(entries)
        self.devices = DeviceDirectory(database)
        self.changes = DeviceChanges(log, KeyCache(database), KeyCountCache(database), self.devices)
        self.follower = self.new_follower()

    def new_follower(self) -> OutboxFollower:
        follower = OutboxFollower(self.database, self.log, self.changes.by_kind(), reactor.callLater)  # type: ignore[attr-defined]
        self.database.on_outbox = follower.wake
        return follower

    async def commit(self, kind: str, **payload: Any) -> None:
        await self.database.run(lambda cur: outbox.add(cur, kind, payload))
        await self.follower.drained()

    def told(self) -> list[tuple[str, bytes]]:
        return [(entry.user_id, entry.ref) for entry in self.released if entry.kind == Kind.DEVICE_LIST]

    def markers(self) -> int:
        with self.log.snapshot() as snapshot:
            return len(list(snapshot.range(FOLLOWERS, b"\0", b"\xff")))


@pytest.fixture
def here(database: Database) -> Here:
    return Here(database, MemoryLog(reactor))  # type: ignore[arg-type]


@ensureDeferred
async def test_changes_reach_the_log_once_and_leave_the_outbox(here: Here, postgres: Callable[..., Any]) -> None:
    await here.commit("device_list", user_id=BOB)
    await here.commit("device_list", user_id=BOB, only_for=ME)
    await here.commit("device_changed", user_id=ME, device_id="PHONE")
    assert here.told() == [(BOB, b""), (ME, BOB.encode()), (ME, b"")]
    assert postgres("SELECT count(*) FROM outbox") == [(0,)]
    assert here.markers() == 1


@ensureDeferred
async def test_i09_killed_between_append_and_removal(here: Here, postgres: Callable[..., Any]) -> None:
    """The row is in both stores: a restart shows it no second time, and tidies up."""
    removal = here.database.run_single

    def killed(work: Any) -> Any:
        return Deferred() if "remove" in work.__code__.co_names else removal(work)

    here.database.run_single = killed  # type: ignore[method-assign]
    await here.database.run(lambda cur: outbox.add(cur, "device_list", {"user_id": BOB}))
    while not here.told():
        done: Deferred[None] = Deferred()
        reactor.callLater(0.01, done.callback, None)  # type: ignore[attr-defined]
        await done
    assert postgres("SELECT count(*) FROM outbox") == [(1,)]
    here.database.run_single = removal  # type: ignore[method-assign]
    for _ in range(2):
        here.follower = here.new_follower()
        await here.follower.drained()
    assert here.told() == [(BOB, b"")]
    assert postgres("SELECT count(*) FROM outbox") == [(0,)]
    await here.commit("device_list", user_id=ME)
    assert here.told() == [(BOB, b""), (ME, b"")] and here.markers() == 1


@ensureDeferred
async def test_i09_rows_of_before_the_start_are_brought(here: Here) -> None:
    here.database.on_outbox = None
    await here.database.run(lambda cur: outbox.add(cur, "device_list", {"user_id": BOB}))
    assert here.told() == []
    await here.new_follower().drained()
    assert here.told() == [(BOB, b"")]


@ensureDeferred
async def test_unknown_kinds_stay_and_do_not_block_others(here: Here, postgres: Callable[..., Any]) -> None:
    await here.commit("of the future", user_id=BOB)
    await here.commit("device_list", user_id=ME)
    assert here.told() == [(ME, b"")]
    assert postgres("SELECT kind FROM outbox") == [("of the future",)]


@ensureDeferred
async def test_a_deleted_device_leaves_no_inbox_and_no_cursor(here: Here) -> None:
    batch = here.log.begin()
    for device_id in "PHONE", "DESK":
        inbox.put_message(batch, ME, device_id, b"{}")
        read.put_device_cursor(batch, ME, device_id, 1)
    here.log.append(batch)
    await here.commit("device_deleted", user_id=ME, device_id="PHONE")
    with here.log.snapshot() as snapshot:
        left = {d: len(list(inbox.messages(snapshot, ME, d, 0, 10**9, 10))) for d in ("PHONE", "DESK")}
        cursors = {d: read.device_cursor(snapshot, ME, d) for d in left}
    assert left == {"PHONE": 0, "DESK": 1} and cursors == {"PHONE": None, "DESK": 1}


class Rooms:
    """Memberships and recent entries as the two ports want them."""

    def __init__(self, **rooms: set[str]) -> None:
        self.rooms = rooms
        self.entries: list[Entry] = []

    def joined_rooms(self, user_id: str) -> Mapping[str, Any]:
        return {room_id: None for room_id, users in self.rooms.items() if user_id in users}

    def joined_users(self, room_id: str) -> set[str]:
        return self.rooms.get(room_id, set())

    def entries_after(self, position: int) -> Sequence[Entry] | None:
        return [entry for entry in self.entries if entry.position > position]

    def member(self, room_id: str, target: str, membership: str, before: str | None = None) -> None:
        (self.rooms[room_id].add if membership == "join" else self.rooms[room_id].discard)(target)
        note = EventNote(
            None, room_id, "$e", target, "m.room.member", target, 1, membership, before, target
        )
        self.entries.append(Entry(len(self.entries) + 1, Kind.EVENT, room_id, note=note))


def between(rooms: Rooms, log: Log | None = None, after: int = 0) -> tuple[list[str], list[str]]:
    log = log or MemoryLog(reactor)  # type: ignore[arg-type]
    with log.snapshot() as snapshot:
        return DeviceListChanges(rooms, rooms).between(snapshot, ME, after, 10**6)


@ensureDeferred
async def test_key_changes_are_told_to_those_who_share_a_room() -> None:
    log = MemoryLog(reactor)  # type: ignore[arg-type]
    batch = log.begin()
    for user_id in BOB, "@stranger:here", ME, CAROL, BOB:
        last = put_change(batch, user_id)
    put_private_change(batch, "@signed:far", ME)
    put_private_change(batch, "@other:far", BOB)
    await log.append(batch)
    rooms = Rooms(a={ME, BOB}, b={"@stranger:here", CAROL})
    assert between(rooms, log) == ([BOB, ME, "@signed:far"], [])
    assert between(rooms, log, after=last - 1) == ([BOB, "@signed:far"], [])
    assert between(rooms, log, after=last + 2) == ([], [])


def test_meeting_somebody_for_the_first_time() -> None:
    rooms = Rooms(a={ME}, b={ME, CAROL})
    rooms.member("a", BOB, "join")
    rooms.member("a", CAROL, "join")  # already known from b
    assert between(rooms) == ([BOB], [])
    rooms.entries.clear()
    rooms.member("a", BOB, "join", "join")  # only a new display name
    assert between(rooms) == ([], [])


def test_who_is_invited_will_have_to_read_the_first_message() -> None:
    rooms = Rooms(a={ME}, b={ME, CAROL})
    rooms.member("a", BOB, "invite")
    rooms.member("a", CAROL, "invite")  # already known from b
    assert between(rooms) == ([BOB], [])
    rooms = Rooms(a={CAROL})
    rooms.member("a", BOB, "invite")
    assert between(rooms) == ([], []), "in a room of others"


def test_joining_two_rooms_of_the_same_person_at_once() -> None:
    rooms = Rooms(a={BOB}, b={BOB})
    rooms.member("a", ME, "join")
    rooms.member("b", ME, "join")
    assert between(rooms) == ([BOB], [])


def test_losing_the_last_room_with_somebody() -> None:
    rooms = Rooms(a={ME, BOB, CAROL}, b={ME, CAROL})
    rooms.member("a", BOB, "leave", "join")
    rooms.member("a", CAROL, "ban", "join")
    rooms.member("b", "@invited:here", "leave", "invite")
    assert between(rooms) == ([], [BOB])
    rooms = Rooms(a={ME, BOB, CAROL}, b={ME, CAROL})
    rooms.member("a", ME, "leave", "join")
    assert between(rooms) == ([], [BOB])
