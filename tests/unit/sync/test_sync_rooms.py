"""Rooms of a sync, over the real engine and the log in memory."""

from typing import Any

import pytest

from tests.fakes.world import World, bodies, user_id


@pytest.fixture
def world() -> World:
    return World()


def joined(body: dict[str, Any], room_id: str) -> dict[str, Any]:
    return body["rooms"]["join"][room_id]


def types(section: dict[str, Any]) -> list[str]:
    return [event["type"] for event in section["events"]]


def test_first_sync_then_only_what_is_new(world: World) -> None:
    room = world.room("a", "b", m_room_name={"name": "Kitchen"})
    for number in range(12):
        world.say("b", room, str(number))
    body = world.synced("a")
    timeline = joined(body, room)["timeline"]
    assert bodies(timeline["events"]) == [str(n) for n in range(2, 12)] and timeline["limited"] is True
    assert "m.room.create" in types(joined(body, room)["state"])
    assert joined(body, room)["unread_notifications"]["notification_count"] == 12
    assert "rooms" not in world.synced("a", body["next_batch"])
    world.say("b", room, "new")
    later = world.synced("a", body["next_batch"])
    assert bodies(joined(later, room)["timeline"]["events"]) == ["new"]
    assert joined(later, room)["timeline"]["limited"] is False
    assert joined(later, room)["state"] == {"events": []}


def test_a_gap_is_limited_and_its_state_is_told(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("b")["next_batch"]
    world.state("a", room, "m.room.topic", {"topic": "one"})
    for number in range(5):
        world.say("a", room, str(number))
    world.state("a", room, "m.room.name", {"name": "N"})
    wanted = {"room": {"timeline": {"limit": 2}}}
    section = joined(world.synced("b", since, filter=wanted), room)
    assert section["timeline"]["limited"] is True
    assert types(section["timeline"]) == ["m.room.message", "m.room.name"]
    assert types(section["state"]) == ["m.room.topic"]
    after = joined(world.synced("b", since, filter=wanted, use_state_after=True), room)
    assert "state" not in after and sorted(types(after["state_after"])) == ["m.room.name", "m.room.topic"]


def test_state_has_the_version_from_before_what_the_timeline_tells(world: World) -> None:
    room = world.room("a")
    since = world.synced("a")["next_batch"]
    world.state("a", room, "m.room.topic", {"topic": "one"})
    world.say("a", room)
    world.state("a", room, "m.room.topic", {"topic": "two"})
    section = joined(world.synced("a", since, filter={"room": {"timeline": {"limit": 1}}}), room)
    assert [e["content"]["topic"] for e in section["state"]["events"]] == ["one"]
    assert [e["content"]["topic"] for e in section["timeline"]["events"]] == ["two"]
    [event] = section["timeline"]["events"]
    assert event["unsigned"]["prev_content"] == {"topic": "one"} and "replaces_state" in event["unsigned"]


def test_a_state_event_that_the_filter_leaves_out_of_the_timeline_is_in_state(world: World) -> None:
    room = world.room("a")
    since = world.synced("a")["next_batch"]
    world.say("a", room)
    world.state("a", room, "m.room.topic", {"topic": "t"})
    wanted = {"room": {"timeline": {"types": ["m.room.message"]}}}
    section = joined(world.synced("a", since, filter=wanted), room)
    assert types(section["timeline"]) == ["m.room.message"] and types(section["state"]) == ["m.room.topic"]


def test_newly_joined_rooms_come_whole(world: World) -> None:
    room = world.room("a")
    world.say("a", room, "before")
    since = world.synced("b")["next_batch"]
    world.join("b", room)
    section = joined(world.synced("b", since, filter={"room": {"timeline": {"limit": 2}}}), room)
    assert bodies(section["timeline"]["events"]) == ["before"] and section["timeline"]["limited"]
    assert {"m.room.create", "m.room.join_rules", "m.room.power_levels"} <= set(types(section["state"]))
    assert section["summary"]["m.joined_member_count"] == 2
    assert section["summary"]["m.heroes"] == ["@a:x"]


def test_full_state(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("a")["next_batch"]
    section = joined(world.synced("a", since, full_state=True), room)
    assert section["timeline"]["events"] == [] and "m.room.create" in types(section["state"])


@pytest.mark.parametrize("how", ["leave", "kick", "ban"])
def test_f02_nothing_from_behind_the_departure(world: World, how: str) -> None:
    room = world.room("a", "b")
    since = world.synced("b")["next_batch"]
    world.say("a", room, "seen")
    if how == "leave":
        world.leave("b", room)
    else:
        getattr(world, how)("a", room, "b")
    world.say("a", room, "hidden")
    world.state("a", room, "m.room.topic", {"topic": "hidden"})
    body = world.synced("b", since)
    section = body["rooms"]["leave"][room]
    assert "join" not in body["rooms"]
    assert bodies(section["timeline"]["events"]) == ["seen"]
    assert section["timeline"]["events"][-1]["content"]["membership"] == ("ban" if how == "ban" else "leave")
    assert "m.room.topic" not in types(section["state"])
    assert "rooms" not in world.synced("b", body["next_batch"])
    assert "rooms" not in world.synced("b")
    archived = world.synced("b", filter={"room": {"include_leave": True}})["rooms"]["leave"][room]
    assert bodies(archived["timeline"]["events"]) == ["seen"]
    assert "m.room.topic" not in types(archived["state"])


def test_invites_have_stripped_state_and_refusing_ends_them(world: World) -> None:
    room = world.room("a", preset="private_chat", m_room_name={"name": "Cellar"})
    since = world.synced("b")["next_batch"]
    world.invite("a", room, "b")
    body = world.synced("b", since)
    events = body["rooms"]["invite"][room]["invite_state"]["events"]
    assert {"m.room.create", "m.room.name", "m.room.join_rules", "m.room.member"} <= {e["type"] for e in events}
    assert all(set(e) <= {"type", "state_key", "sender", "content"} for e in events if e["type"] != "m.room.member")
    assert room in world.synced("b")["rooms"]["invite"]
    world.leave("b", room)
    left = world.synced("b", body["next_batch"])["rooms"]["leave"][room]
    assert [e["content"]["membership"] for e in left["timeline"]["events"]] == ["leave"]


def test_history_before_the_join_is_hidden_when_the_room_says_so(world: World) -> None:
    room = world.room("a", m_room_history_visibility={"history_visibility": "joined"})
    world.say("a", room, "secret")
    world.join("b", room)
    world.say("a", room, "open")
    section = joined(world.synced("b"), room)
    assert bodies(section["timeline"]["events"]) == ["open"]


def test_lazy_loading_tells_senders_once(world: World) -> None:
    room = world.room("a", "b", "c", "d")
    wanted = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    world.say("b", room)
    body = world.synced("a", filter=wanted)

    def members(section: dict[str, Any]) -> set[str]:
        return {e["state_key"] for e in section["state"]["events"] if e["type"] == "m.room.member"}

    # Heroes and oneself come as well, as the whole room is told.
    assert {"@a:x", "@b:x"} <= members(joined(body, room))
    world.say("b", room)
    body = world.synced("a", body["next_batch"], filter=wanted)
    assert members(joined(body, room)) == set()
    world.say("b", room)
    redundant = {"room": {"state": {"lazy_load_members": True, "include_redundant_members": True}}}
    assert members(joined(world.synced("a", body["next_batch"], filter=redundant), room)) == {"@b:x"}


def test_lazy_loading_leaves_strangers_out(world: World) -> None:
    room = world.room("a", *"bcdefghij", m_room_name={"name": "n"})
    world.say("j", room)
    wanted = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    section = joined(world.synced("a", filter=wanted), room)
    assert {e["state_key"] for e in section["state"]["events"] if e["type"] == "m.room.member"} == {"@a:x", "@j:x"}


def test_lazy_loading_tells_member_changes_of_a_gap(world: World) -> None:
    room = world.room("a", "b", m_room_name={"name": "n"})
    wanted = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
    since = world.synced("a", filter=wanted)["next_batch"]
    world.join("c", room)
    world.say("b", room)
    world.say("b", room)
    section = joined(world.synced("a", since, filter=wanted), room)
    assert section["timeline"]["limited"]
    assert "@c:x" in {e["state_key"] for e in section["state"]["events"]}


def test_only_the_sending_device_is_told_its_transaction_id(world: World) -> None:
    room = world.room("a", "b")
    since_a, since_b = world.synced("a")["next_batch"], world.synced("b")["next_batch"]
    world.say("a", room, "x", "txn7")
    mine = joined(world.synced("a", since_a), room)["timeline"]["events"][0]["unsigned"]
    theirs = joined(world.synced("b", since_b), room)["timeline"]["events"][0]["unsigned"]
    assert mine["transaction_id"] == "txn7" and "transaction_id" not in theirs
    assert mine["membership"] == "join" and mine["age"] == 0


def test_f03_a_redacted_event_is_gone_though_the_ring_still_has_it(world: World) -> None:
    room = world.room("a")
    since = world.synced("a")["next_batch"]
    event_id = world.say("a", room, "regretted")
    world.redact("a", room, event_id)
    events = joined(world.synced("a", since), room)["timeline"]["events"]
    assert events[0]["content"] == {}
    assert events[0]["unsigned"]["redacted_because"]["type"] == "m.room.redaction"


def test_ignored_users_are_not_heard_but_their_state_is(world: World) -> None:
    room = world.room("a", "b", "c")
    world.state("a", room, "m.room.power_levels", {"users": {"@a:x": 100, "@b:x": 50}})
    world.set_data("a", "m.ignored_user_list", {"ignored_users": {"@b:x": {}}})
    since = world.synced("a")["next_batch"]
    world.say("b", room, "noise")
    world.say("c", room, "voice")
    world.state("b", room, "m.room.topic", {"topic": "t"})
    private = world.room("b", preset="private_chat")
    world.invite("b", private, "a")
    body = world.synced("a", since)
    assert bodies(joined(body, room)["timeline"]["events"]) == ["voice"]
    assert "m.room.topic" in types(joined(body, room)["timeline"])
    assert "invite" not in body["rooms"]


def test_room_filters(world: World) -> None:
    one, two = world.room("a"), world.room("a")
    assert set(world.synced("a", filter={"room": {"rooms": [one]}})["rooms"]["join"]) == {one}
    assert set(world.synced("a", filter={"room": {"not_rooms": [one]}})["rooms"]["join"]) == {two}


def test_event_fields_and_federation_format(world: World) -> None:
    room = world.room("a")
    world.say("a", room, "x")
    last = joined(world.synced("a", filter={"event_fields": ["type", "content.body"]}), room)["timeline"]["events"][-1]
    assert last == {"type": "m.room.message", "content": {"body": "x"}}
    last = joined(world.synced("a", filter={"event_format": "federation"}), room)["timeline"]["events"][-1]
    assert "prev_events" in last


def test_many_rooms_are_read_as_of_one_position(world: World) -> None:
    rooms = [world.room("a") for _ in range(45)]
    request = world.request("a", None)
    from twisted.internet.defer import ensureDeferred

    results: list[Any] = []
    ensureDeferred(world.sync.reader.read(request)).addBoth(results.append)
    position = world.log.position
    # While the answer is being read, something happens in a room of its end.
    world.say("a", rooms[-1], "late")
    for _ in range(10):
        world.clock.advance(0)
    import json

    body = json.loads(results[0].body.dump())
    assert len(body["rooms"]["join"]) == 45 and body["next_batch"] == f"se1_{position}"
    assert bodies(joined(body, rooms[-1])["timeline"]["events"]) == []
    assert bodies(joined(world.synced("a", body["next_batch"]), rooms[-1])["timeline"]["events"]) == ["late"]


def test_after_a_restart_an_old_token_gives_what_came_since(world: World) -> None:
    room = world.room("a", "b")
    since = world.synced("a")["next_batch"]
    world.say("b", room, "meanwhile")
    world.read("b", room, world.say("b", room, "again"))
    world.set_data("a", "x.test", {"k": 1})
    again = world.restart()
    body = again.synced("a", since)
    assert bodies(joined(body, room)["timeline"]["events"]) == ["meanwhile", "again"]
    assert joined(body, room)["ephemeral"]["events"][0]["type"] == "m.receipt"
    assert [e["type"] for e in body["account_data"]["events"]] == ["x.test"]
    assert "rooms" not in again.synced("a", body["next_batch"])


def test_forgotten_rooms_are_gone(world: World) -> None:
    room = world.room("a", "b")
    world.leave("b", room)
    world.run(world.membership.forget(world.who("b"), room))
    assert "rooms" not in world.synced("b", filter={"room": {"include_leave": True}})


def test_heroes_are_those_who_came_first_and_never_oneself(world: World) -> None:
    room = world.room("a", *"bcdefg")
    assert joined(world.synced("a"), room)["summary"]["m.heroes"] == [user_id(u) for u in "bcdef"]
    assert joined(world.synced("c"), room)["summary"]["m.heroes"] == [user_id(u) for u in "abdef"]
    for user in "bcdefg":
        world.leave(user, room)
    assert joined(world.synced("a"), room)["summary"]["m.heroes"] == [user_id(u) for u in "bcdef"]
