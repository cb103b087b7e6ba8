"""Answers that many readers share: they are the ones that each would have been given alone."""

import json
from typing import Any

import pytest

from tests.fakes.world import World, user_id


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def room(world: World) -> str:
    room_id = world.room("alice", "bob", "carol")
    for name in ("alice", "bob", "carol"):
        world.synced(name)
    return room_id


def both(world: World, user: str, since: str, **options: Any) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The quick answer, if there is one, and the one that was read."""
    request = world.request(user, since, **options)
    quick = world.sync.longpoll._quick.read(request)
    read = world.run(world.sync.reader.read(request))
    if quick is not None:
        assert quick.position == read.position
    return None if quick is None else json.loads(quick.body.dump()), json.loads(read.body.dump())


def test_nothing_new_needs_no_reading(world: World, room: str) -> None:
    quick, read = both(world, "bob", world.synced("bob")["next_batch"])
    assert quick == read
    assert "rooms" not in read


@pytest.mark.parametrize("options", [{}, {"use_state_after": True}])
def test_typing_and_receipts_are_the_same_for_all(world: World, room: str, options: dict[str, Any]) -> None:
    since = world.synced("carol")["next_batch"]
    event_id = world.say("alice", room, "one")
    start = world.synced("carol", since)["next_batch"]
    world.sync.typing.start(room, user_id("alice"))
    world.read("alice", room, event_id)
    answers = [both(world, name, start, **options) for name in ("bob", "carol")]
    for quick, read in answers:
        assert quick == read
    types = [event["type"] for event in answers[0][1]["rooms"]["join"][room]["ephemeral"]["events"]]
    assert sorted(types) == ["m.receipt", "m.typing"]


def test_one_of_another_room_is_told_nothing(world: World, room: str) -> None:
    other = world.room("dave")
    world.synced("dave")
    start = world.synced("dave")["next_batch"]
    world.sync.typing.start(room, user_id("alice"))
    quick, read = both(world, "dave", start)
    assert quick == read
    assert "rooms" not in read
    assert other != room


def test_what_differs_between_readers_is_read(world: World, room: str) -> None:
    event_id = world.say("alice", room, "one")
    start = world.synced("bob")["next_batch"]
    world.read("bob", room, event_id)
    assert both(world, "bob", start)[0] is None  # own receipt: unread counts
    quick, read = both(world, "carol", start)
    assert quick == read
    world.read("carol", room, event_id, "m.read.private")
    assert both(world, "carol", start)[0] is None
    quick, read = both(world, "alice", start)
    assert quick == read
    filtered = {"filter": {"room": {"ephemeral": {"not_types": ["m.receipt"]}}}}
    assert both(world, "alice", start, **filtered)[0] is None
    world.say("alice", room, "two")
    assert both(world, "carol", start)[0] is None


def test_receipts_of_ignored_users_are_not_shared(world: World, room: str) -> None:
    event_id = world.say("alice", room, "one")
    world.set_data("bob", "m.ignored_user_list", {"ignored_users": {user_id("alice"): {}}})
    start = world.synced("bob")["next_batch"]
    world.read("alice", room, event_id)
    assert both(world, "carol", start)[0] is not None
    quick, read = both(world, "bob", start)
    assert quick is None
    assert "rooms" not in read


def test_to_device_messages_that_came_after_an_empty_inbox_are_deleted(world: World, room: str) -> None:
    since = world.synced("bob")["next_batch"]
    world.poll("bob", since, 0)
    world.send_to_device("bob", {"type": "m.test"})
    polling = world.poll("bob", since, 0)
    assert polling.body is not None
    assert len(polling.body["to_device"]["events"]) == 1
    again = world.poll("bob", polling.body["next_batch"], 0)
    assert again.body is not None
    assert "to_device" not in again.body
    # The first answer came back as ``since``: the inbox is empty, even for one who asks from further back.
    assert "to_device" not in world.synced("bob", since)
