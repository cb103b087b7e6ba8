"""The sections of a sync that are not rooms, ephemeral events, and the long poll."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from federation.rules.errors import MatrixError
from homeserver.sync.reader import Reading
from storage.log import inbox
from tests.fakes.world import World, bodies


@pytest.fixture
def world() -> World:
    return World()


def ephemeral(body: dict[str, Any], room_id: str) -> list[dict[str, Any]]:
    return body["rooms"]["join"][room_id]["ephemeral"]["events"]


def test_account_data_of_account_and_room(world: World) -> None:
    room = world.room("a")
    since = world.synced("a")["next_batch"]
    world.set_data("a", "x.global", {"n": 1})
    world.set_data("a", "x.room", {"n": 2}, room)
    world.set_data("b", "x.other", {})
    body = world.synced("a", since)
    assert body["account_data"]["events"] == [{"type": "x.global", "content": {"n": 1}}]
    assert body["rooms"]["join"][room]["account_data"]["events"] == [{"type": "x.room", "content": {"n": 2}}]
    assert body["rooms"]["join"][room]["timeline"]["events"] == []
    assert "account_data" not in world.synced("a", body["next_batch"])
    first = {event["type"] for event in world.synced("a")["account_data"]["events"]}
    assert first == {"x.global", "m.push_rules"}


def test_to_device_messages_are_deleted_with_the_next_sync(world: World) -> None:
    since = world.synced("a")["next_batch"]
    world.send_to_device("a", {"type": "t", "n": 1})
    first = world.synced("a", since)
    assert [m["n"] for m in first["to_device"]["events"]] == [1]
    assert [m["n"] for m in world.synced("a", since)["to_device"]["events"]] == [1], "asked again, told again"
    world.send_to_device("a", {"type": "t", "n": 2})
    second = world.synced("a", first["next_batch"])
    assert [m["n"] for m in second["to_device"]["events"]] == [2]
    world.clock.pump([0, 0])
    assert [m["n"] for m in world.synced("a", None)["to_device"]["events"]] == [2], "the first is gone"


def test_a_backlog_of_to_device_messages_comes_in_hundreds_and_none_is_lost(world: World) -> None:
    since = world.synced("a")["next_batch"]
    world.send_to_device("a", *({"type": "t", "n": n} for n in range(250)))
    numbers: list[int] = []
    for expected in (100, 100, 50):
        body = world.synced("a", since)
        assert len(body["to_device"]["events"]) == expected
        numbers += [m["n"] for m in body["to_device"]["events"]]
        since = body["next_batch"]
    assert numbers == list(range(250))
    assert "to_device" not in world.synced("a", since)


def test_messages_from_before_a_restart_are_deleted_as_they_are_acknowledged(world: World) -> None:
    since = world.synced("a")["next_batch"]
    world.send_to_device("a", *({"type": "t", "n": n} for n in range(150)))
    world = world.restart()
    for expected in (100, 50):
        poll = world.poll("a", since, 0)
        assert poll.body is not None
        assert len(poll.body["to_device"]["events"]) == expected
        since = poll.body["next_batch"]
    world.poll("a", since, 0)
    world.clock.pump([0, 0])
    assert "to_device" not in world.synced("a", None), "acknowledged ones are kept"


def test_a_message_for_another_device_does_not_hide_ones_own(world: World) -> None:
    since = world.synced("a")["next_batch"]
    world.send_to_device("a", {"type": "t", "n": 1})
    batch = world.log.begin()
    inbox.put_message(batch, "@a:x", "ANOTHER", b"{}")
    world.run(world.log.append(batch))
    assert [message["n"] for message in world.synced("a", since)["to_device"]["events"]] == [1]


def test_what_comes_while_a_poll_is_read_ends_it(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("a")["next_batch"]
    empty = world.run(world.sync.reader.read(world.request("a", since)))
    longpoll = world.sync.longpoll
    late: Deferred[Reading] = Deferred()
    longpoll._quick.read = lambda request: None  # type: ignore[method-assign]
    longpoll._reader.read = lambda request: late  # type: ignore[method-assign]
    poll = world.poll("a", since)
    world.say("b", room, "meanwhile")
    del longpoll._reader.read, longpoll._quick.read
    late.callback(empty)
    for _ in range(5):
        world.clock.advance(0)
    assert poll.body is not None and bodies(poll.body["rooms"]["join"][room]["timeline"]["events"]) == ["meanwhile"]


def test_public_and_private_receipts(world: World) -> None:
    room = world.room("a", "b", "c")
    event_id = world.say("a", room)
    tokens = {user: world.synced(user)["next_batch"] for user in "abc"}
    world.read("b", room, event_id)
    world.read("c", room, event_id, "m.read.private")
    [seen_by_a] = ephemeral(world.synced("a", tokens["a"]), room)
    assert seen_by_a["content"] == {event_id: {"m.read": {"@b:x": {"ts": world.now_ms()}}}}
    [seen_by_c] = ephemeral(world.synced("c", tokens["c"]), room)
    assert seen_by_c["content"][event_id]["m.read.private"] == {"@c:x": {"ts": world.now_ms()}}
    assert ephemeral(world.synced("a"), room)[0]["content"] == seen_by_a["content"]


def test_receipts_never_go_back_and_threads_count_apart(world: World) -> None:
    room = world.room("a", "b")
    first, second = world.say("a", room, "1"), world.say("a", room, "2")
    world.read("b", room, second)
    since = world.synced("a")["next_batch"]
    world.read("b", room, first)
    assert "rooms" not in world.synced("a", since)
    world.read("b", room, first, thread="main")
    [event] = ephemeral(world.synced("a", since), room)
    assert event["content"][first]["m.read"]["@b:x"]["thread_id"] == "main"


def test_a_receipt_for_another_room_or_thread_is_refused(world: World) -> None:
    room, other = world.room("a"), world.room("a")
    elsewhere = world.say("a", other)
    with pytest.raises(MatrixError) as refusal:
        world.read("a", room, elsewhere)
    assert refusal.value.status == 404
    root = world.say("a", room)
    reply = world.say("a", room, **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    world.read("a", room, reply, thread=root)
    with pytest.raises(MatrixError) as refusal:
        world.read("a", room, reply, thread="main")
    assert refusal.value.status == 400


def test_fully_read_is_account_data_that_moves_forward(world: World) -> None:
    room = world.room("a")
    first, second = world.say("a", room, "1"), world.say("a", room, "2")
    world.read("a", room, second, "m.fully_read")
    world.read("a", room, first, "m.fully_read")
    [event] = world.synced("a")["rooms"]["join"][room]["account_data"]["events"]
    assert event == {"type": "m.fully_read", "content": {"event_id": second}}


def test_own_receipts_change_the_counts(world: World) -> None:
    room = world.room("a", "b")
    event_id = world.say("b", room)
    body = world.synced("a")
    assert body["rooms"]["join"][room]["unread_notifications"]["notification_count"] == 1
    world.read("a", room, event_id, "m.read.private")
    later = world.synced("a", body["next_batch"])["rooms"]["join"][room]
    assert later["unread_notifications"] == {"notification_count": 0, "highlight_count": 0}


def test_typing_is_told_and_ends_when_its_author_leaves(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("a")["next_batch"]
    world.sync.typing.start(room, "@b:x")
    body = world.synced("a", since)
    assert ephemeral(body, room) == [{"type": "m.typing", "content": {"user_ids": ["@b:x"]}}]
    assert ephemeral(world.synced("a"), room)[0]["content"] == {"user_ids": ["@b:x"]}
    world.clock.advance(1)
    world.leave("b", room)
    assert ephemeral(world.synced("a", body["next_batch"]), room) == [{"type": "m.typing", "content": {"user_ids": []}}]


def test_presence_of_people_in_sight_only(world: World) -> None:
    world.room("a", "b")
    world.room("c")
    since = world.synced("a")["next_batch"]
    for user in "abc":
        world.sync.presence.sync_started(f"@{user}:x", "D")
    body = world.synced("a", since)
    assert {e["sender"] for e in body["presence"]["events"]} == {"@a:x", "@b:x"}
    assert {e["sender"] for e in world.synced("a")["presence"]["events"]} == {"@a:x", "@b:x"}
    world.room("a", "c")
    assert "@c:x" in {e["sender"] for e in world.synced("a", body["next_batch"])["presence"]["events"]}


def test_who_comes_into_sight_is_on_the_device_list(world: World) -> None:
    room = world.room("a")
    since = world.synced("a")["next_batch"]
    world.join("b", room)
    body = world.synced("a", since)
    assert body["device_lists"]["changed"] == ["@b:x"]
    world.leave("b", room)
    assert world.synced("a", body["next_batch"])["device_lists"]["left"] == ["@b:x"]


def test_key_counts_are_always_told(world: World) -> None:
    body = world.synced("a")
    assert body["device_one_time_keys_count"] == {"signed_curve25519": 0}
    assert body["device_unused_fallback_key_types"] == []


# -- waiting -------------------------------------------------------------------------------------------------------


def test_a_poll_waits_for_what_concerns_it(world: World) -> None:
    room, other = world.room("a", "b"), world.room("b")
    since = world.synced("a")["next_batch"]
    poll = world.poll("a", since)
    world.say("b", other)
    world.clock.advance(1)
    assert poll.body is None
    world.say("b", room, "ding")
    world.clock.advance(0)
    assert poll.body is not None
    assert bodies(poll.body["rooms"]["join"][room]["timeline"]["events"]) == ["ding"]


def test_a_poll_ends_in_time_with_a_newer_token(world: World) -> None:
    world.room("a")
    since = world.synced("a")["next_batch"]
    poll = world.poll("a", since, 5_000)
    world.room("b")
    world.clock.advance(4.9)
    assert poll.body is None
    world.clock.advance(0.2)
    assert poll.body is not None and "rooms" not in poll.body
    assert poll.body["next_batch"] == f"se1_{world.log.position}" != since
    assert world.feed.waiting == 0


def test_what_the_filter_leaves_out_does_not_end_a_poll(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("a")["next_batch"]
    poll = world.poll("a", since, filter={"room": {"ephemeral": {"types": []}}})
    world.sync.typing.start(room, "@b:x")
    world.clock.advance(0.1)
    assert poll.body is None
    world.say("b", room)
    world.clock.advance(0)
    assert poll.body is not None


def test_i13_a_token_from_the_future_does_not_hang(world: World) -> None:
    room = world.room("a")
    poll = world.poll("a", "se1_999999999")
    assert poll.body is not None and room in poll.body["rooms"]["join"]


def test_a_first_sync_and_full_state_do_not_wait(world: World) -> None:
    since = world.synced("a")["next_batch"]
    assert world.poll("a", None).body is not None
    assert world.poll("a", since, full_state=True).body is not None


def test_b02_a_revoked_session_ends_its_poll_with_401(world: World) -> None:
    since = world.synced("a")["next_batch"]
    poll, other = world.poll("a", since), world.poll("b", since)
    world.sync.longpoll.revoked("@a:x", "DEVICE_a", "token_a")
    assert poll.error.status == 401 and poll.error.errcode == "M_UNKNOWN_TOKEN"
    assert other.body is None and other.error is None


def test_b02_a_lock_ends_polls_without_ending_sessions(world: World) -> None:
    since = world.synced("a")["next_batch"]
    poll, other = world.poll("a", since), world.poll("b", since)
    world.sync.longpoll.locked("@a:x")
    assert poll.body is not None and other.body is None


def test_a_client_that_goes_away_leaves_nothing_behind(world: World) -> None:
    poll = world.poll("a", world.synced("a")["next_batch"])
    poll.call.close()
    assert world.feed.waiting == 0 and not world.sync.longpoll._polls


def test_a_stopping_server_answers_what_waits(world: World) -> None:
    poll = world.poll("a", world.synced("a")["next_batch"])
    poll.call.stop()
    assert poll.body is not None


def test_a_device_is_woken_by_its_own_messages_only(world: World) -> None:
    since = world.synced("a")["next_batch"]
    poll = world.poll("a", since)
    world.send_to_device("b", {"type": "t"})
    assert poll.body is None
    world.send_to_device("a", {"type": "t", "n": 1})
    world.clock.advance(0)
    assert poll.body is not None and poll.body["to_device"]["events"] == [{"type": "t", "n": 1}]
