"""What happens to the log when storage fails (cases I02, I03, I05)."""

import threading

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from storage.log.append import Kind, Log
from storage.log.catalog import PRESENCE
from storage.log.errors import LogFull, LogUnavailable
from tests.fakes.log import Harness


class Broken(OSError):
    """The injected failure."""


def fail_call(harness: Harness, number: int) -> None:
    """Make the n-th storage step from now on fail."""
    left = [number]

    def fault(step: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Broken(step)

    harness.fault = fault


async def add(log: Log, key: bytes, value: bytes = b"v") -> int:
    batch = log.begin()
    position = batch.entry(Kind.RECEIPT)
    batch.put(PRESENCE, key, value)
    assert await log.append(batch) == position
    return position


@ensureDeferred
async def test_i02_each_storage_call_fails_once_and_nothing_earlier_is_lost(harness: Harness) -> None:
    log = harness.open()
    await add(log, b"earlier")
    failures = 0
    for number in range(1, 50):
        fail_call(harness, number)
        done: list[bytes] = []
        broken = False
        for key in (b"a%d" % number, b"b%d" % number):
            try:
                await add(log, key)
                done.append(key)
            except LogUnavailable as error:
                broken = True
                assert isinstance(error.__cause__, Broken)
                break
        if broken:
            failures += 1
            assert log.failed is not None
        harness.fault = lambda step: None
        await log.close()
        log = harness.open()
        assert log.failed is None
        assert log.get(PRESENCE, b"earlier") == b"v"
        assert all(log.get(PRESENCE, key) == b"v" for key in done)
        if not broken:
            break
    else:
        raise AssertionError("no run completed")
    assert failures >= 6
    assert harness.positions == sorted(set(harness.positions))
    await log.close()


@ensureDeferred
async def test_i03_a_failed_commit_is_not_retried_and_everything_queued_fails(harness: Harness) -> None:
    log = harness.open()
    told: list[BaseException] = []
    log.on_failure = told.append
    await add(log, b"before")
    steps: list[str] = []

    def fault(step: str) -> None:
        steps.append(step)
        if step == "commit":
            raise Broken("fsync")

    harness.fault = fault
    batch = log.begin()
    batch.put(PRESENCE, b"one", b"v")
    first = log.append(batch)
    log._flush()  # the first is in flight, the second waits
    second = log.begin()
    second.entry(Kind.EVENT)
    second.put(PRESENCE, b"two", b"v")
    waiting = log.append(second)
    waiting.addErrback(lambda failure: failures.append(failure.value))
    failures: list[BaseException] = []
    log.append_ephemeral(Kind.TYPING)
    with pytest.raises(LogUnavailable):
        await first
    await waiting
    assert len(failures) == 1 and isinstance(failures[0], LogUnavailable)
    assert isinstance(log.failed, Broken) and told == [log.failed]
    assert steps.count("begin") == 1
    assert log.get(PRESENCE, b"one") is None and log.get(PRESENCE, b"two") is None
    assert log.get(PRESENCE, b"before") == b"v"
    with pytest.raises(LogUnavailable):
        await add(log, b"three")
    with pytest.raises(LogUnavailable):
        log.append_ephemeral(Kind.TYPING)
    assert steps.count("begin") == 1
    assert harness.positions == [1]
    await log.close()


@ensureDeferred
async def test_i05_the_map_grows_while_running_and_nothing_is_lost(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open(map_size=1 << 20)
    for number in range(64):
        batch = log.begin()
        for row in range(20):
            batch.entry(Kind.RECEIPT)
            batch.put(PRESENCE, b"%d/%d" % (number, row), bytes(3000))
        done = log.append(batch)
        with log.snapshot() as snapshot:
            assert snapshot.get(PRESENCE, b"%d/0" % number) is None
        await done
    assert log._store.stats()["map_size"] >= 4 << 20  # type: ignore[attr-defined]
    assert lmdb_harness.positions == list(range(1, 64 * 20 + 1))
    await log.close()
    log = lmdb_harness.open(map_size=1 << 20)
    assert all(log.get(PRESENCE, b"%d/%d" % (n, row)) == bytes(3000) for n in range(64) for row in range(20))
    await log.close()


@ensureDeferred
async def test_i05_growth_waits_for_readers_that_are_at_work(lmdb_harness: Harness) -> None:
    from twisted.internet import reactor
    from twisted.python.threadpool import ThreadPool

    log = lmdb_harness.open(map_size=1 << 20)
    pool = ThreadPool(1, 1)
    pool.start()
    batch = log.begin()
    batch.put(PRESENCE, b"k", b"v")
    await log.append(batch)

    def read(snapshot: object) -> bytes:
        import time

        time.sleep(0.1)
        value = snapshot.get(PRESENCE, b"k")  # type: ignore[attr-defined]
        assert isinstance(value, bytes)
        return value

    reading = log._store.read_in_thread(pool, read)  # type: ignore[attr-defined]
    batch = log.begin()
    batch.put(PRESENCE, b"big", bytes(3 << 20))
    await log.append(batch)
    assert reading.called
    assert await reading == b"v"
    assert log.get(PRESENCE, b"big") == bytes(3 << 20)
    await log.close()
    pool.stop()
    assert reactor is not None


@ensureDeferred
async def test_i05_a_map_at_its_limit_refuses_writes_and_goes_on_reading(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open(map_size=1 << 20, largest_map_size=1 << 20)
    kept: list[bytes] = []
    with pytest.raises(LogFull):
        for number in range(1000):
            key = b"k%d" % number
            await add(log, key, bytes(10000))
            kept.append(key)
    assert len(kept) > 20
    assert log.failed is None
    assert all(log.get(PRESENCE, key) == bytes(10000) for key in kept)
    batch = log.begin()
    for key in kept[:40]:
        batch.delete(PRESENCE, key)
    await log.append(batch)
    # LMDB gives freed pages out again once the next commit has ended.
    await add(log, b"small")
    await add(log, b"after", bytes(10000))
    await log.close()


@ensureDeferred
async def test_a_commit_that_does_not_end_is_reported_and_may_still_succeed(
    lmdb_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.log.append.STALL_SECONDS", 0.05)
    log = lmdb_harness.open()
    told: Deferred[bool] = Deferred()
    stalls: list[bool] = []

    def note(stalled: bool) -> None:
        stalls.append(stalled)
        if stalled:
            told.callback(True)

    log.on_stall = note
    disk = threading.Event()

    def hang(step: str) -> None:
        if step == "commit":
            disk.wait(10)

    lmdb_harness.fault = hang
    waiting = Deferred.fromCoroutine(add(log, b"late"))
    assert await told is True
    assert log.stalled and not waiting.called
    with log.snapshot() as snapshot:
        assert snapshot.get(PRESENCE, b"late") is None
    disk.set()
    await waiting
    assert not log.stalled and stalls == [True, False]
    assert log.get(PRESENCE, b"late") == b"v"
    await log.close()
