"""The feed: positions, the ring, and who is woken by what."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.feed import PRIVATE, WAKE_CHUNK, Feed
from storage.log.append import Entry, Kind


class Rooms:
    """Who is joined where."""

    def __init__(self, **rooms: set[str]) -> None:
        self.rooms = rooms

    def joined_users(self, room_id: str) -> set[str]:
        return self.rooms.get(room_id, set())

    def joined_rooms(self, user_id: str) -> list[str]:
        return [room_id for room_id, users in self.rooms.items() if user_id in users]


class Target:
    def __init__(self, target: str) -> None:
        self.target = target


def make(ring_size: int = 100, **rooms: set[str]) -> tuple[Feed, Clock]:
    clock = Clock()
    return Feed(clock, Rooms(**rooms), position=10, ring_size=ring_size), clock


def outcome(deferred: "Deferred[bool]") -> list[bool]:
    results: list[bool] = []
    deferred.addCallback(results.append)
    return results


def test_the_position_moves_and_the_ring_answers() -> None:
    feed, _ = make()
    feed.release(12, [Entry(11, Kind.EVENT, "r"), Entry(12, Kind.TYPING, "r")])
    assert feed.position == 12 and feed.room_events == {"r": 11} and feed.room_typing == {"r": 12}
    assert [e.position for e in feed.entries_after(10) or ()] == [11, 12]
    assert [e.position for e in feed.entries_after(11) or ()] == [12]
    assert feed.entries_after(12) == []
    assert feed.entries_after(9) is None


def test_the_ring_forgets_the_oldest_and_says_so() -> None:
    feed, _ = make(ring_size=4)
    for position in range(11, 31):
        feed.release(position, [Entry(position, Kind.EVENT, "r")])
    known = next(p for p in range(10, 31) if feed.entries_after(p) is not None)
    assert 22 <= known <= 26
    assert [e.position for e in feed.entries_after(known) or ()] == list(range(known + 1, 31))


@pytest.mark.parametrize(
    ("entry", "woken"),
    [
        (Entry(11, Kind.EVENT, "r"), {"a", "b"}),
        (Entry(11, Kind.EVENT, "r", note=Target("c")), {"a", "b", "c"}),
        (Entry(11, Kind.EVENT, "elsewhere"), set()),
        (Entry(11, Kind.TYPING, "r"), {"a", "b"}),
        (Entry(11, Kind.RECEIPT, "r", "a"), {"a", "b"}),
        (Entry(11, Kind.RECEIPT, "r", "a", ref=PRIVATE), {"a"}),
        (Entry(11, Kind.ACCOUNT_DATA, "r", "b"), {"b"}),
        (Entry(11, Kind.TO_DEVICE, user_id="b", device_id="Db"), {"b"}),
        (Entry(11, Kind.TO_DEVICE, user_id="b", device_id="other"), set()),
        (Entry(11, Kind.KEY_COUNTS, user_id="c", device_id="Dc"), {"c"}),
        (Entry(11, Kind.PRESENCE, user_id="a"), {"a", "b"}),
        (Entry(11, Kind.DEVICE_LIST, user_id="c"), {"c"}),
        (Entry(11, Kind.MEMBERSHIP, "new", "c"), {"c"}),
        (Entry(11, Kind.FEDERATION), set()),
    ],
)
def test_those_concerned_are_woken(entry: Entry, woken: set[str]) -> None:
    feed, _ = make(r={"a", "b", "offline"})
    waits = {user: outcome(feed.wait(user, "D" + user, 10, 30)) for user in ("a", "b", "c")}
    feed.release(11, [entry])
    assert {user for user, results in waits.items() if results == [True]} == woken


def test_a_wait_ends_in_time() -> None:
    feed, clock = make(r={"a"})
    results = outcome(feed.wait("a", "D", 10, 5))
    clock.advance(4.9)
    assert results == []
    clock.advance(0.2)
    assert results == [False] and feed.waiting == 0 and clock.getDelayedCalls() == []


def test_nothing_is_missed_between_reading_and_waiting() -> None:
    feed, _ = make(r={"a"})
    feed.release(11, [Entry(11, Kind.EVENT, "r")])
    assert outcome(feed.wait("a", "D", 10, 5)) == [True]


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    feed, clock = make(r={"a"})
    wait = feed.wait("a", "D", 10, 5)
    wait.addErrback(lambda _: None)
    wait.cancel()
    assert feed.waiting == 0 and clock.getDelayedCalls() == []


def test_a_crowd_is_woken_over_several_turns() -> None:
    users = {f"u{n}" for n in range(3 * WAKE_CHUNK)}
    feed, clock = make(r=users)
    waits = [outcome(feed.wait(user, "D", 10, 30)) for user in users]
    feed.release(11, [Entry(11, Kind.EVENT, "r")])
    assert sum(map(len, waits)) == WAKE_CHUNK
    clock.advance(0)
    clock.advance(0)
    assert sum(map(len, waits)) == 3 * WAKE_CHUNK


def test_nobody_in_a_crowd_is_told_that_nothing_came() -> None:
    """Those whose time is over in the turn in which they are woken have something to read all the same."""
    users = {f"u{n}" for n in range(3 * WAKE_CHUNK)}
    feed, clock = make(r=users)
    waits = [outcome(feed.wait(user, "D", 10, 5)) for user in users]
    clock.callLater(4.9, feed.release, 11, [Entry(11, Kind.EVENT, "r")])
    clock.advance(5.5)
    clock.pump([0, 0, 0])
    assert waits == [[True]] * len(users)


def test_waits_end_each_in_its_time() -> None:
    feed, clock = make(r={"a"})
    ends: list[float] = []
    for seconds in (3.0, 1.0, 2.04, 2.0, 0.0):
        feed.wait("a", "D", 10, seconds).addCallback(lambda _: ends.append(clock.seconds()))
    clock.pump([0.05] * 70)
    assert ends == pytest.approx([0.05, 1.0, 2.0, 2.1, 3.0], abs=0.051)
    assert clock.getDelayedCalls() == []


def test_followers_hear_first_and_one_that_fails_fails_alone() -> None:
    feed, _ = make(r={"a"})
    heard: list[str] = []

    def broken(entries: object) -> None:
        raise ValueError("broken")

    feed.follow(broken)
    feed.follow(lambda entries: heard.append("follower"))
    feed.wait("a", "D", 10, 5).addCallback(lambda _: heard.append("waiter"))
    feed.release(11, [Entry(11, Kind.EVENT, "r")])
    assert heard == ["follower", "waiter"]
