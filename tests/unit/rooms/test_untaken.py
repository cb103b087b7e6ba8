"""Events that could not be placed when they came are tried again, a bounded number of times, of a bounded number of servers."""

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock

from homeserver.rooms.untaken import KEPT, MAX_PLACES, TRIES, Untaken


class Peer:
    """Receives what is tried again; refuses it as long as ``away``."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.untaken = Untaken(self.clock, self.take)
        self.away = True
        self.tried: list[tuple[float, list[str]]] = []

    async def take(self, origin: str, room_id: str, pdus: Sequence[Any]) -> None:
        self.tried.append((self.clock.seconds(), list(pdus)))
        for pdu in pdus:
            if self.away:
                self.untaken.keep(origin, room_id, pdu, pdu)
            else:
                self.untaken.placed(origin, room_id, pdu)

    def keep(self, name: str, origin: str = "o", room: str = "!r") -> None:
        self.untaken.keep(origin, room, name, name)


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_they_are_tried_until_they_can_be_placed(peer: Peer) -> None:
    peer.keep("a")
    peer.clock.advance(59)
    assert not peer.tried
    peer.keep("b")
    peer.clock.advance(1)
    peer.away = False
    peer.clock.advance(120)
    assert peer.tried == [(60, ["a", "b"]), (180, ["a", "b"])]
    assert not peer.untaken.waiting and not peer.clock.getDelayedCalls()


def test_what_came_another_way_is_not_tried(peer: Peer) -> None:
    peer.keep("a")
    peer.untaken.placed("o", "!r", "a")
    assert not peer.untaken.waiting and not peer.clock.getDelayedCalls()


def test_tries_and_what_is_kept_are_bounded(peer: Peer) -> None:
    for number in range(KEPT + 3):
        peer.keep(f"{number}")
    for _ in range(10_000):
        peer.clock.advance(60)
    assert len(peer.tried) == TRIES and not peer.untaken.waiting
    assert peer.tried[0][1] == [f"{number}" for number in range(3, KEPT + 3)]
    for number in range(MAX_PLACES + 5):
        peer.keep("x", origin=f"s{number}")
    assert peer.untaken.waiting == len(peer.clock.getDelayedCalls()) == MAX_PLACES
    peer.untaken.stop()
    assert not peer.clock.getDelayedCalls()
