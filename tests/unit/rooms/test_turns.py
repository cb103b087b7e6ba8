"""H07: many who want the same room's turn."""

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred

from federation.rules.errors import MatrixError
from homeserver.rooms.turns import MAX_WAITING, Turns


class Crowd:
    """Everybody who asked for a turn, and who had it."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.at_work: list[tuple[int, Deferred[None]]] = []
        self.done: list[int] = []

    def ask(self, number: int, key: str = "!room") -> "Deferred[int]":
        async def work() -> int:
            ended: Deferred[None] = Deferred()
            self.at_work.append((number, ended))
            await ended
            self.done.append(number)
            return number

        return Deferred.fromCoroutine(self.turns.take(key, work))

    def end_turn(self) -> None:
        assert len(self.at_work) == 1, "two have the turn"
        self.at_work.pop()[1].callback(None)


@ensureDeferred
async def test_h07_of_five_hundred_a_hundred_wait_in_order_and_the_others_are_refused_at_once() -> None:
    crowd = Crowd()
    asked = [crowd.ask(number) for number in range(500)]
    refused = [one for one in asked[MAX_WAITING:] if one.called]
    assert len(refused) == 500 - MAX_WAITING
    for one in refused:
        with pytest.raises(MatrixError) as caught:
            await one
        assert caught.value.status == 429
    for _ in range(MAX_WAITING):
        crowd.end_turn()
    assert crowd.done == [await one for one in asked[:MAX_WAITING]] == list(range(MAX_WAITING))


@ensureDeferred
async def test_h07_who_gives_up_waiting_leaves_their_place() -> None:
    crowd = Crowd()
    first = crowd.ask(0)
    impatient = [crowd.ask(number) for number in range(1, MAX_WAITING)]
    for one in impatient:
        one.cancel()
        with pytest.raises(CancelledError):
            await one
    patient = [crowd.ask(number) for number in range(MAX_WAITING, 2 * MAX_WAITING - 1)]
    assert not any(one.called for one in patient)
    for _ in range(MAX_WAITING):
        crowd.end_turn()
    assert await first == 0
    assert [await one for one in patient] == crowd.done[1:]


@ensureDeferred
async def test_h07_a_failure_passes_the_turn_on() -> None:
    crowd = Crowd()
    first, second = crowd.ask(1), crowd.ask(2)
    crowd.at_work.pop()[1].errback(OSError("no"))
    with pytest.raises(OSError, match="no"):
        await first
    crowd.end_turn()
    assert await second == 2


@ensureDeferred
async def test_h07_rooms_do_not_wait_for_each_other() -> None:
    crowd = Crowd()
    slow, quick = crowd.ask(1, "!slow"), crowd.ask(2, "!quick")
    crowd.at_work.pop()[1].callback(None)
    assert await quick == 2 and not slow.called
    crowd.end_turn()
    await slow
    assert crowd.turns._queues == {}
