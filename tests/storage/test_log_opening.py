"""Opening a log safely (I04) and reader hygiene (I06)."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from storage.log import env
from storage.log.catalog import META, PRESENCE
from storage.log.directory import check_directory, file_system
from storage.log.env import open_log, renew_epoch
from storage.log.errors import LogRefused
from tests.fakes.log import Harness

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / {point} rw,relatime shared:9 - {kind} server:/export rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_i04_network_file_systems_are_refused(tmp_path: Path, kind: str) -> None:
    mounts = MOUNTS.format(point=tmp_path, kind=kind)
    with pytest.raises(LogRefused, match=kind):
        check_directory(tmp_path / "log", mounts)
    assert file_system(tmp_path.parent, mounts) == "ext4"
    check_directory(tmp_path / "log", MOUNTS.format(point=tmp_path, kind="xfs"))


def test_i04_a_directory_of_another_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(LogRefused, match="belongs to"):
        check_directory(tmp_path)


@ensureDeferred
async def test_i04_one_server_at_a_time(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    with pytest.raises(LogRefused, match=str(os.getpid())):
        open_log(lmdb_harness.path, reactor)
    code = (
        "import sys; sys.path[:] = sys.argv[2:]\n"
        "from storage.log.directory import DirectoryLock; from pathlib import Path\n"
        "DirectoryLock(Path(sys.argv[1]))"
    )
    other = subprocess.run(  # noqa: ASYNC221 (nothing else is going on)
        [sys.executable, "-c", code, str(lmdb_harness.path), *sys.path, str(Path(__file__).parents[2])],
        stderr=subprocess.PIPE,
    )
    assert b"LogRefused" in other.stderr
    await log.close()
    await lmdb_harness.open().close()


@ensureDeferred
async def test_another_format_is_refused(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    batch = log.begin()
    batch.put(META, b"format", b"\0" * 7 + b"\x09")
    await log.append(batch)
    await log.close()
    with pytest.raises(LogRefused, match="format 9"):
        lmdb_harness.open()


@ensureDeferred
async def test_the_environment_is_synced_and_locked(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    flags = log._store._env.flags()  # type: ignore[attr-defined]
    assert flags["sync"] and flags["metasync"] and flags["lock"] and not flags["writemap"]
    await log.close()


@ensureDeferred
async def test_i06_the_file_does_not_grow_while_the_same_rows_are_overwritten(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    used = []
    for number in range(300):
        batch = log.begin()
        for row in range(10):
            batch.put(PRESENCE, b"row%d" % row, bytes([number % 256]) * 2000)
        done = log.append(batch)
        with log.snapshot() as snapshot:
            snapshot.get(PRESENCE, b"row1")
        await done
        used.append(log._store.stats()["used"])  # type: ignore[attr-defined]
    assert used[-1] <= used[30] + 16 * 4096
    assert log._store.stats()["open_snapshots"] == 0  # type: ignore[attr-defined]
    await log.close()


@ensureDeferred
async def test_i06_a_snapshot_that_was_held_is_reported(
    lmdb_harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = lmdb_harness.open()
    monkeypatch.setattr(env, "SLOW_SNAPSHOT", 0.0)
    log.snapshot().close()
    assert log._store.stats()["slow_snapshots"] == 1  # type: ignore[attr-defined]
    await log.close()


@ensureDeferred
async def test_snapshots_show_the_released_position_while_a_commit_is_under_way(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    for number in range(50):
        batch = log.begin()
        batch.put(PRESENCE, b"k", b"%d" % number)
        done = log.append(batch)
        log._flush()
        # Wait for the writer to be through: its commit is on disk, but nobody has been told.
        store = log._store
        for _ in range(1000):
            with store._env.begin() as txn:  # type: ignore[attr-defined]
                if txn.get(b"k", db=store._dbs[PRESENCE.number]) == b"%d" % number:  # type: ignore[attr-defined]
                    break
        with log.snapshot() as snapshot:
            assert snapshot.get(PRESENCE, b"k") == (b"%d" % (number - 1) if number else None)
        await done
        with log.snapshot() as snapshot:
            assert snapshot.get(PRESENCE, b"k") == b"%d" % number
    await log.close()


@ensureDeferred
async def test_a_restored_log_has_another_epoch_and_stays_the_same_log(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", reactor)
    first = log.epoch
    await log.close()
    log = open_log(tmp_path / "log", reactor)  # a restart alone changes nothing
    assert (log.epoch, log.first_epoch) == (first, first)
    await log.close()
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    shutil.rmtree(tmp_path / "log")
    shutil.copytree(tmp_path / "backup", tmp_path / "log")
    (tmp_path / "log" / "data.mdb").rename(tmp_path / "kept")  # so that the copy gets an inode of its own for certain
    shutil.copy(tmp_path / "kept", tmp_path / "log" / "data.mdb")
    log = open_log(tmp_path / "log", reactor)
    restored = log.epoch
    assert restored != first and log.first_epoch == first
    await log.close()
    log = open_log(tmp_path / "log", reactor)  # and it is said once
    assert (log.epoch, log.first_epoch) == (restored, first)
    await log.close()


@ensureDeferred
async def test_an_epoch_can_be_renewed_by_hand_while_no_server_runs(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log", reactor)
    first = log.epoch
    with pytest.raises(LogRefused):
        renew_epoch(tmp_path / "log")
    await log.close()
    renewed = renew_epoch(tmp_path / "log")
    log = open_log(tmp_path / "log", reactor)
    assert (log.epoch, log.first_epoch) == (renewed, first) and renewed != first
    await log.close()
