"""Typing notifications: they end, they merge, they are bounded."""

import json

from twisted.internet.task import Clock

from homeserver.ephemeral import typing
from homeserver.ephemeral.typing import MERGE_SECONDS, Typing


def make() -> tuple[Typing, Clock, list[str]]:
    clock, announced = Clock(), []
    return Typing(clock, announced.append), clock, announced


def test_start_and_stop_are_announced() -> None:
    rooms, clock, announced = make()
    rooms.start("!r", "@a:x")
    assert rooms.users("!r") == ["@a:x"] and announced == ["!r"]
    assert json.loads(rooms.event("!r")) == {"type": "m.typing", "content": {"user_ids": ["@a:x"]}}
    clock.advance(1)
    rooms.stop("!r", "@a:x")
    assert rooms.users("!r") == [] and announced == ["!r", "!r"]
    assert json.loads(rooms.event("!r"))["content"] == {"user_ids": []}


def test_typing_ends_by_itself() -> None:
    rooms, clock, announced = make()
    rooms.start("!r", "@a:x", 5000)
    clock.advance(4)
    rooms.start("!r", "@a:x", 5000)
    clock.advance(4)
    assert rooms.users("!r") == ["@a:x"] and announced == ["!r"], "saying it again is no change"
    clock.advance(1.1)
    assert rooms.users("!r") == [] and announced == ["!r", "!r"]


def test_an_endless_time_out_is_cut() -> None:
    rooms, clock, _ = make()
    rooms.start("!r", "@a:x", 10**18)
    clock.advance(121)
    assert rooms.users("!r") == []


def test_h08_a_burst_is_merged() -> None:
    rooms, clock, announced = make()
    for number in range(50):
        rooms.start("!r", f"@u{number}:x")
    assert announced == ["!r"]
    clock.advance(MERGE_SECONDS)
    assert announced == ["!r", "!r"] and len(rooms.users("!r")) == 50
    clock.advance(MERGE_SECONDS)
    assert announced == ["!r", "!r"]


def test_h08_a_room_has_a_bound(monkeypatch: object) -> None:
    rooms, _, _ = make()
    for number in range(typing.MAX_TYPING_IN_ROOM + 10):
        rooms.start("!r", f"@u{number}:x")
    assert len(rooms.users("!r")) == typing.MAX_TYPING_IN_ROOM


def test_a_quiet_room_is_forgotten() -> None:
    rooms, clock, _ = make()
    rooms.start("!r", "@a:x")
    rooms.stop("!r", "@a:x")
    for _ in range(3):
        clock.advance(MERGE_SECONDS)
    assert clock.getDelayedCalls() == [] and not rooms._rooms
