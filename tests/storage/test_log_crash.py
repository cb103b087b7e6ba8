"""I01: the writer process is killed with SIGKILL at random moments; what was acknowledged is there, whole, once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import pytest

from storage.log.append import unpack_entry
from storage.log.catalog import EVENTS, LOG, PRESENCE
from storage.log.check import check_directory_log
from storage.log.keys import from_u64

WRITER = Path(__file__).with_name("log_crash_writer.py")
ROOT = Path(__file__).parents[2]


def start(path: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-S", str(WRITER), str(path), *sys.path],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def run_rounds(path: Path, seconds: float, seed: int) -> int:
    """Kill and look, again and again; returns how many kills there were."""
    server = start(path)
    acknowledged: dict[int, bytes] = {}
    try:
        kills = kill_writers(server, path, random.Random(seed), seconds, acknowledged)
    finally:
        # The whole group: a writer must not outlive the test.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    look(path, acknowledged)
    assert len(acknowledged) > kills
    return kills


def kill_writers(
    server: "subprocess.Popen[bytes]", path: Path, choice: random.Random, seconds: float, acknowledged: dict[int, bytes]
) -> int:
    """Kill one writer after the other for some seconds; fills ``acknowledged`` with position → batch."""
    assert server.stdout is not None
    kills = highest = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # The server forks a writer for each round: no interpreter start between the kills.
        word, pid, position = server.stdout.readline().split()
        assert word == b"open"
        assert int(position) >= highest, "a position that was given out came back"
        time.sleep(choice.random() * choice.choice([0.002, 0.01, 0.03]))
        os.kill(int(pid), signal.SIGKILL)
        kills += 1
        while (line := server.stdout.readline()) != b"dead\n":
            words = line.split()
            if line.endswith(b"\n") and words[0] == b"ack":
                acknowledged[int(words[1])] = words[2]
            if line.endswith(b"\n") and words[0] in (b"ack", b"given"):
                highest = max(highest, int(words[1]))
        if kills % 20 == 0:
            # The next writer is at work meanwhile: readers never wait for it.
            look(path, acknowledged)
    return kills


def look(path: Path, acknowledged: dict[int, bytes]) -> None:
    """Every acknowledged entry, no half batch, no value twice."""
    env = lmdb.open(str(path), max_dbs=64, readonly=True, map_size=1 << 32)
    try:
        with env.begin() as txn:
            log, rows = (env.open_db(table.name.encode(), txn, create=False) for table in (LOG, PRESENCE))
            entries = {from_u64(key): unpack_entry(from_u64(key), value) for key, value in txn.cursor(log)}
            values = dict(iter(txn.cursor(rows)))
    finally:
        env.close()
    for position, name in acknowledged.items():
        assert entries[position].ref == name
    batches: dict[bytes, int] = {}
    for entry in entries.values():
        batches[entry.ref] = batches.get(entry.ref, 0) + 1
    for name, count in batches.items():
        # A batch is three entries and two rows.
        assert count == 3, f"half a batch: {name!r}"
        assert values[name + b"/a"] == values[name + b"/b"] == name
    assert len(values) == 2 * len(batches)


def test_i01_killed_at_random_points_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    kills = run_rounds(tmp_path / "log", 12, seed=random.randrange(1 << 30))
    assert kills > 50
    report = check_directory_log(tmp_path / "log")
    assert not [problem for problem in report.problems if problem.table not in (LOG.name, EVENTS.name)]


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_i01_a_thousand_kills(tmp_path: Path) -> None:
    kills = 0
    while kills < 1000:
        kills += run_rounds(tmp_path / f"log{kills}", 30, seed=kills)
