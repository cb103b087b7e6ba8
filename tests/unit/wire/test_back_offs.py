"""Back-offs of requests to other servers, in memory and across restarts."""

import pytest
from twisted.internet.task import Clock

from federation.wire import destinations
from federation.wire.destinations import InMemoryDestinations
from federation.wire.kept_back_offs import keep
from storage.log.append import Log
from storage.log.back_offs import all_back_offs
from storage.memory import MemoryStore, open_memory_log


class Runs:
    """A server that is started again and again on one log; its wall clock can be set."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.now = 1_000_000
        self.start()

    def start(self) -> None:
        self.log: Log = open_memory_log(self.store, self.clock, "e1")
        self.back_offs = InMemoryDestinations(lambda: self.now, lambda: 0.5, 30_000, 2.0, 86_400_000)
        keep(self.back_offs, self.log)

    def restart(self) -> None:
        self.clock.advance(1)
        self.start()

    @property
    def rows(self) -> int:
        self.clock.advance(1)
        with self.log.snapshot() as snapshot:
            return len(list(all_back_offs(snapshot)))


@pytest.fixture
def runs() -> Runs:
    return Runs()


def test_e01_a_restart_does_not_forget_who_is_dead(runs: Runs) -> None:
    for _ in range(3):
        runs.back_offs.failed("dead", "no route")
        runs.now += 200_000
    before = runs.back_offs.state_of("dead")
    runs.now -= 200_000
    runs.restart()
    assert runs.back_offs.state_of("dead") == before
    assert runs.back_offs.refused_until("dead") == runs.now + 120_000
    runs.now += 120_000
    assert runs.back_offs.refused_until("dead") is None
    runs.back_offs.failed("dead", "no route")
    assert runs.back_offs.refused_until("dead") == runs.now + 240_000


def test_a_sign_of_life_is_not_forgotten_either(runs: Runs) -> None:
    runs.back_offs.failed("dead", "no route")
    runs.restart()
    runs.back_offs.succeeded("dead")
    assert runs.rows == 0
    runs.restart()
    assert runs.back_offs.refused_until("dead") is None


def test_i15_a_wait_written_down_with_a_clock_ahead_is_no_longer_than_any_other(runs: Runs) -> None:
    runs.now += 10**9
    runs.back_offs.failed("dead", "no route")
    runs.now -= 10**9
    runs.restart()
    until = runs.back_offs.refused_until("dead")
    assert until is not None and until <= runs.now + 36_000


def test_no_more_servers_are_remembered_than_there_is_room_for(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that failed last stay."""
    monkeypatch.setattr(destinations, "MAX_SERVERS", 3)
    for name in ("a", "b", "c"):
        runs.back_offs.failed(name, "x")
    runs.now += 60_000
    for name in ("a", "d"):
        runs.back_offs.failed(name, "x")
    assert [name for name in "abcd" if runs.back_offs.state_of(name) is not None] == ["a", "c", "d"]
    assert runs.rows == 3
