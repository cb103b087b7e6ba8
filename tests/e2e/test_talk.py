"""Real clients talk while the server is killed: nothing acknowledged is lost, nothing arrives twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _talk(people: int, rounds: int, seconds: int) -> dict[str, object]:
    command = [sys.executable, "-m", "tests.e2e.talk", "--people", str(people), "--rounds", str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.stdout, done.stderr[-3000:]
    return json.loads(done.stdout)


def _check(result: dict[str, object], least: int, sockets: int) -> None:
    assert result["not stored"] == []
    assert result["missing"] == []
    assert result["twice"] == []
    assert result["problems"] == []
    assert result["undecrypted"] == 0
    assert result["over the WebSocket"] == sockets
    assert result["never resumed"] == 0
    cut_short = result["under way at each kill"]
    assert isinstance(cut_short, list)
    assert cut_short, "never killed"
    assert all(cut_short), "a kill came when nobody was talking, so it proved nothing"
    assert isinstance(result["acknowledged"], int)
    assert result["acknowledged"] >= least


@pytest.mark.timeout(300)
def test_twelve_people_talk_through_crashes() -> None:
    """A 1:1 chat, an encrypted group and a plain one, a third of the devices over the long poll; three kills."""
    _check(_talk(12, 3, 280), 3 * 8 * 5, 10)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_i01_a_hundred_people_talk_through_twenty_crashes() -> None:
    """The same with a group of a hundred and twenty kills."""
    _check(_talk(100, 20, 3500), 20 * 8 * 5, 73)


@pytest.mark.timeout(300)
def test_i01_acknowledged_writes_survive() -> None:
    """Twenty kills: each acknowledged message and to-device message is there once, for each reader."""
    command = [sys.executable, "-m", "tests.e2e.acknowledged", "--rounds", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.stdout, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["missing"] == []
    assert result["twice"] == []
    assert result["not stored"] == []
    assert result["acknowledged"] == 20 * 4 * 15
    assert len(result["under way at each kill"]) == 20
    assert all(result["under way at each kill"])
