"""The write side of the log, over LMDB and over its twin in memory."""

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from storage.log.append import LEASE, Entry, Kind, Log
from storage.log.catalog import LOG, PRESENCE
from storage.log.errors import LogUnavailable
from storage.log.keys import u64
from storage.log.read import (
    device_cursor,
    entries,
    follower_cursor,
    put_device_cursor,
    put_follower_cursor,
)
from tests.fakes.log import Harness


def add(log: Log, key: bytes = b"k", value: bytes = b"v", user: str = "@a:b") -> Any:
    batch = log.begin()
    batch.entry(Kind.RECEIPT, user_id=user, note=key)
    batch.put(PRESENCE, key, value)
    return log.append(batch)


@ensureDeferred
async def test_an_append_is_pending_then_durable_then_released(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    assert batch.entry(Kind.EVENT, room_id="!r:x", user_id="@a:x", ref=b"ref", note="note") == 1
    batch.put(PRESENCE, b"k", b"v")
    assert (log.get(PRESENCE, b"k"), batch.get(PRESENCE, b"k")) == (None, b"v")
    done = log.append(batch)
    assert log.get(PRESENCE, b"k") == b"v"
    assert log.position == 0 and not harness.released
    with log.snapshot() as snapshot:
        assert snapshot.get(PRESENCE, b"k") is None
    assert await done == 1
    assert log.position == 1
    assert harness.released == [(1, [Entry(1, Kind.EVENT, "!r:x", "@a:x", "", b"ref", "note")])]
    with log.snapshot() as snapshot:
        assert snapshot.get(PRESENCE, b"k") == b"v"
        assert list(entries(snapshot, 0, 1)) == [Entry(1, Kind.EVENT, "!r:x", "@a:x", "", b"ref")]
    await log.close()


@ensureDeferred
async def test_i07_what_waits_shares_a_commit_and_each_is_answered_after_its_own(harness: Harness) -> None:
    log = harness.open()
    answered: list[tuple[int, int]] = []
    waiting = [add(log, b"k%d" % i).addCallback(lambda p: answered.append((p, log.groups))) for i in range(50)]
    await waiting[-1]
    second = add(log)
    await second
    assert answered == [(position, 1) for position in range(1, 51)]
    assert log.groups == 2
    assert harness.positions == list(range(1, 52))
    await log.close()


@ensureDeferred
async def test_decisions_see_the_newest_of_several_pending_values(harness: Harness) -> None:
    log = harness.open()
    done = add(log, b"k", b"one")
    await deferLater(reactor, 0, lambda: None)  # the first is in flight now, the others wait behind it
    second = add(log, b"k", b"two")
    batch = log.begin()
    batch.delete(PRESENCE, b"k")
    assert log.get(PRESENCE, b"k") == b"two"
    third = log.append(batch)
    assert log.get(PRESENCE, b"k") is None
    await done
    with log.snapshot() as snapshot:
        assert snapshot.get(PRESENCE, b"k") == b"one"
    assert log.get(PRESENCE, b"k") is None
    await second
    await third
    assert log.get(PRESENCE, b"k") is None
    await log.close()


@ensureDeferred
async def test_ephemeral_entries_come_at_once_or_in_order_behind_their_neighbours(harness: Harness) -> None:
    log = harness.open()
    assert log.append_ephemeral(Kind.TYPING, room_id="!r:x", note=1) == 1
    assert log.position == 1 and harness.positions == [1]
    done = add(log)
    assert log.append_ephemeral(Kind.TYPING, room_id="!r:x") == 3
    assert harness.positions == [1]
    batch = log.begin()
    assert batch.entry(Kind.EVENT) == 4
    assert log.append_ephemeral(Kind.TYPING) == 5
    last = log.append(batch)
    await done
    await last
    assert harness.positions == [1, 2, 3, 4, 5]
    with log.snapshot() as snapshot:
        assert [entry.position for entry in entries(snapshot, 0, 9)] == [2, 4]
    await log.close()


@ensureDeferred
async def test_ephemeral_entries_wait_for_a_batch_that_is_being_filled(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    assert batch.entry(Kind.EVENT) == 1
    assert log.append_ephemeral(Kind.TYPING) == 2
    assert harness.positions == [] and log.position == 0
    await log.append(batch)
    assert harness.positions == [1, 2]
    await log.close()


@ensureDeferred
async def test_batches_filled_alternately_in_one_turn_are_released_in_order(harness: Harness) -> None:
    log = harness.open()
    one, other = log.begin(), log.begin()
    one.entry(Kind.EVENT)
    other.entry(Kind.EVENT)
    one.entry(Kind.EVENT)
    done = log.append(other), log.append(one)
    assert [await waiting for waiting in done] == [2, 3]
    assert harness.positions == [1, 2, 3]
    await log.close()


@ensureDeferred
async def test_a_batch_is_appended_once_and_in_its_own_turn(harness: Harness) -> None:
    log = harness.open()
    kept = log.begin()
    kept.entry(Kind.EVENT)
    done = add(log)
    await done
    with pytest.raises(RuntimeError, match="turn"):
        log.append(kept)
    batch = log.begin()
    first = log.append(batch)
    with pytest.raises(RuntimeError, match="twice"):
        log.append(batch)
    await first
    # The abandoned batch has left a gap and stops nobody.
    log.append_ephemeral(Kind.TYPING)
    await log.flushed()
    assert harness.positions == [2, 3]
    await log.close()


@ensureDeferred
async def test_releases_made_by_the_feed_come_after_the_current_one(harness: Harness) -> None:
    log = harness.open()
    seen: list[int] = []

    def release(position: int, released: list[Entry]) -> None:
        if position == 1:
            log.append_ephemeral(Kind.PRESENCE)
        seen.append(position)

    log.on_release = release
    await add(log)
    await log.flushed()
    assert seen == [1, 2]
    await log.close()


@ensureDeferred
async def test_a_failing_feed_does_not_leave_callers_waiting(harness: Harness) -> None:
    log = harness.open()

    def release(position: int, released: list[Entry]) -> None:
        raise ValueError("feed")

    log.on_release = release
    assert await add(log) == 1
    await log.close()


def test_i08_keys_are_neither_empty_nor_too_long(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    for key in (b"", b"x" * 512):
        with pytest.raises(ValueError):
            batch.put(PRESENCE, key, b"")
        with pytest.raises(ValueError):
            batch.delete(PRESENCE, key)
    harness.kill(log)


@ensureDeferred
async def test_data_and_position_survive_a_clean_restart(harness: Harness) -> None:
    log = harness.open()
    await add(log, b"k", b"v")
    log.append_ephemeral(Kind.TYPING)
    epoch = log.epoch
    await log.close()
    again = harness.open()
    assert (again.epoch, again.position) == (epoch, 2)
    assert again.get(PRESENCE, b"k") == b"v"
    assert await add(again) == 3
    await again.close()


@ensureDeferred
async def test_i13_no_position_is_given_twice_after_a_crash(harness: Harness) -> None:
    log = harness.open()
    await add(log)
    given = [log.append_ephemeral(Kind.TYPING) for _ in range(10)]
    harness.kill(log)
    again = harness.open()
    # A token made before the crash is at or below the position now, one made later is above.
    assert again.position >= given[-1]
    assert again.append_ephemeral(Kind.TYPING) > given[-1]
    await again.close()


@ensureDeferred
async def test_i13_the_lease_is_renewed_before_it_is_used_up(harness: Harness) -> None:
    log = harness.open()
    last = 0
    for _ in range(LEASE * 2):
        last = log.append_ephemeral(Kind.TYPING)
        if last % 1000 == 0:
            await deferLater(reactor, 0, lambda: None)
    await log.flushed()
    assert harness.positions == list(range(1, last + 1))
    harness.kill(log)
    again = harness.open()
    assert again.position >= last
    await again.close()


@ensureDeferred
async def test_close_lets_what_waits_become_durable(harness: Harness) -> None:
    log = harness.open()
    done = add(log, b"k", b"v")
    await log.close()
    assert await done == 1
    with pytest.raises(LogUnavailable):
        await add(log)
    with pytest.raises(LogUnavailable):
        log.append_ephemeral(Kind.TYPING)
    again = harness.open()
    assert again.get(PRESENCE, b"k") == b"v"
    await again.close()


@ensureDeferred
async def test_an_empty_batch_fires_when_everything_before_is_durable(harness: Harness) -> None:
    log = harness.open()
    order: list[str] = []
    add(log).addCallback(lambda _: order.append("first"))
    await log.append(log.begin())
    assert order == ["first"]
    assert log.position == 1
    await log.close()


@ensureDeferred
async def test_ranges_run_both_ways_with_limits(harness: Harness) -> None:
    log = harness.open()
    for number in range(10):
        add(log, u64(number), b"%d" % number)
    await log.append(log.begin())
    with log.snapshot() as snapshot:

        def values(start: int, stop: bytes, **options: Any) -> list[int]:
            return [int(value) for _, value in snapshot.range(PRESENCE, u64(start), stop, **options)]

        assert values(3, u64(6)) == [3, 4, 5]
        assert values(3, u64(6), reverse=True) == [5, 4, 3]
        assert values(3, u64(99), limit=2) == [3, 4]
        assert values(3, b"\xff" * 9, reverse=True, limit=2) == [9, 8]
        assert values(3, u64(3)) == values(4, u64(3), reverse=True) == values(0, u64(9), limit=0) == []
        assert list(snapshot.range(PRESENCE, b"\xff", b"\xff\xff")) == []
        assert values(0, b"\0", reverse=True) == []
        assert len(list(snapshot.range(LOG, b"\0", b"\xff" * 9))) == 10
    await log.close()


@ensureDeferred
async def test_cursors(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    put_follower_cursor(batch, "push", 7, b"rest")
    put_device_cursor(batch, "@a:b", "D", 9)
    await log.append(batch)
    assert follower_cursor(log, "push") == (7, b"rest")
    assert follower_cursor(log, "other") is None
    assert device_cursor(log, "@a:b", "D") == 9
    assert device_cursor(log, "@a:b", "E") is None
    await log.close()
