"""Scenes between two and three servers: who joins, who says what, who sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from federation.rules.event import Event
from federation.rules.room_versions import ROOM_VERSIONS
from federation.wire.errors import PeerUnreachable
from homeserver.rooms.departures import Departures
from tests.fakes.town import Town, Twin


def two() -> tuple[Town, Twin, Twin]:
    town = Town()
    return town, town.server("a"), town.server("b")


def together() -> tuple[Town, Twin, Twin, str]:
    """Alice on one server and Bob on the other, in a room."""
    town, a, b = two()
    room = a.create("alice")
    b.join("bob", room, via=a)
    town.settle()
    return town, a, b, room


@contextmanager
def unheard(town: Town, server: Twin) -> Iterator[None]:
    """What this server does meanwhile reaches nobody."""
    queued = server.outbox.queue
    server.outbox.queue = lambda server, pdu: None  # type: ignore[method-assign,assignment]
    yield
    town.settle()
    server.outbox.queue = queued  # type: ignore[method-assign]


def agree(room_id: str, *servers: Twin) -> None:
    """Everybody has the same heads and the same state."""
    first = servers[0]
    for other in servers[1:]:
        assert other.heads(room_id) == first.heads(room_id), f"heads of {first.name} and {other.name}"
        assert other.state_of(room_id) == first.state_of(room_id), f"states of {first.name} and {other.name}"


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_joining_and_talking(version: str) -> None:
    town, a, b = two()
    room = a.create("alice", version)
    a.say("alice", room, "before")
    b.join("bob", room, via=a)
    town.settle()
    assert a.member("@bob:b", room) == b.member("@bob:b", room) == "join"
    a.say("alice", room, "hello bob")
    b.say("bob", room, "hello alice")
    town.settle()
    assert a.bodies(room) == ["before", "hello bob", "hello alice"]
    assert b.bodies(room) == ["hello bob", "hello alice"]
    agree(room, a, b)
    assert a.rooms.get(room).meta.joined == b.rooms.get(room).meta.joined == 2


def test_a_third_server_hears_of_a_join_through_the_first() -> None:
    town, a, b = two()
    c = town.server("c")
    room = a.create("alice")
    b.join("bob", room, via=a)
    c.join("carol", room, via=a)
    town.settle()
    assert b.member("@carol:c", room) == "join"
    c.say("carol", room, "hi all")
    town.settle()
    assert a.bodies(room) == b.bodies(room) == c.bodies(room) == ["hi all"]
    agree(room, a, b, c)


def test_fork_and_merge() -> None:
    town, a, b, room = together()
    town.cut.add(frozenset("ab"))
    a.say("alice", room, "left")
    a.state("alice", room, "m.room.topic", {"topic": "left"})
    b.say("bob", room, "right")
    town.clock.advance(3)
    town.cut.clear()
    town.settle()
    agree(room, a, b)
    assert len(a.heads(room)) == 2
    a.say("alice", room, "together")
    town.settle()
    agree(room, a, b)
    assert len(a.heads(room)) == 1


def test_kick_across_servers_beats_a_message_in_flight() -> None:
    town, a, b, room = together()
    town.cut.add(frozenset("ab"))
    town.run(a.membership.kick(a.who("alice"), room, "@bob:b", None))
    late = b.say("bob", room, "still here")
    town.cut.clear()
    town.settle()
    assert a.knows(late) == "soft-failed"
    assert a.bodies(room) == []
    assert b.member("@bob:b", room) == a.member("@bob:b", room) == "leave"
    a.say("alice", room, "on we go")
    town.settle()
    assert len(a.heads(room)) == 1


def test_redaction_travels() -> None:
    town, a, b = two()
    room = a.create("alice")
    b.join("bob", room, via=a)
    said = a.say("alice", room, "oops")
    town.settle()
    town.run(a.sending.redact(a.who("alice"), room, said, None, None))
    town.settle()
    assert b.bodies(room) == ["(redacted)"]


def test_missing_events_are_fetched() -> None:
    town, a, b, room = together()
    with unheard(town, a):
        for number in range(5):
            a.say("alice", room, f"lost {number}")
    a.say("alice", room, "found")
    town.settle()
    assert b.bodies(room) == [*(f"lost {number}" for number in range(5)), "found"]
    agree(room, a, b)


def test_what_lies_before_the_join_is_no_head_when_a_gap_is_filled() -> None:
    town, a, _, room = together()
    c = town.server("c")
    c.join("carol", room, via=a)
    a.state("alice", room, "m.room.join_rules", {"join_rule": "invite"})
    town.settle()
    state = c.state_of(room)
    with unheard(town, c):
        c.say("carol", room, "aside")  # the only head of c: who is asked what comes behind it has never heard of it
    with unheard(town, a):
        a.say("alice", room, "lost")
    a.say("alice", room, "found")
    town.settle()
    assert c.bodies(room) == ["aside", "lost", "found"]
    assert len(c.heads(room)) == 2
    assert c.state_of(room) == state


def test_what_follows_an_event_from_before_the_join_is_placed() -> None:
    town, a, _, room = together()
    late = a.draft("alice", room, "m.room.message", {"body": "said before I heard of Carol"})
    c = town.server("c")
    c.join("carol", room, via=a)
    town.settle()
    assert a.transaction(c, late)["pdus"] == {late.event_id: {}}
    assert c.bodies(room) == ["said before I heard of Carol"]
    assert c.state_of(room) == a.state_of(room)


def test_a_gap_too_wide_is_bridged_by_state() -> None:
    town, a, b, room = together()
    with unheard(town, a):
        a.state("alice", room, "m.room.topic", {"topic": "unheard"})
        for number in range(40):
            a.say("alice", room, f"lost {number}")
    a.say("alice", room, "found")
    town.settle()
    assert b.bodies(room)[-1] == "found"
    assert b.rooms.get(room).content("m.room.topic") == {"topic": "unheard"}
    assert b.state_of(room) == a.state_of(room)


def test_history_from_before_the_join() -> None:
    town, a, b = two()
    room = a.create("alice")
    for number in range(30):
        a.say("alice", room, f"old {number}")
    b.join("bob", room, via=a)
    town.settle()
    assert b.federated.history.has_more(room)
    assert town.run(b.federated.history.fetch(room, 10)) == 10
    assert b.bodies(room) == [f"old {number}" for number in range(20, 30)]
    while town.run(b.federated.history.fetch(room, 10)):
        pass
    assert b.bodies(room) == [f"old {number}" for number in range(30)]
    assert not b.federated.history.has_more(room)
    agree(room, a, b)


def test_history_from_before_the_first_join_is_found_after_the_second() -> None:
    town, a, b = two()
    room = a.create("alice")
    a.say("alice", room, "long ago")
    b.join("bob", room, via=a)
    town.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()
    b.join("bob", room, via=a)
    town.settle()
    while town.run(b.federated.history.fetch(room, 10)):
        pass
    assert b.bodies(room) == ["long ago"]


def test_leaving_and_coming_back() -> None:
    town, a, b, room = together()
    town.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()
    assert a.member("@bob:b", room) == "leave"
    a.say("alice", room, "unheard")
    town.settle()
    assert b.bodies(room) == []
    b.join("bob", room, via=a)
    town.settle()
    a.say("alice", room, "welcome back")
    town.settle()
    assert b.bodies(room) == ["welcome back"]
    agree(room, a, b)


def test_invite_and_join_of_a_private_room() -> None:
    town, a, b = two()
    room = a.create("alice", preset="private_chat")
    town.run(a.remote.invite(a.rooms.get(room), "@alice:a", "@bob:b", {"membership": "invite"}))
    town.settle()
    record = b.memberships.rooms_of("@bob:b")[room]
    assert record.membership == "invite"
    b.join("bob", room, via=a)
    town.settle()
    assert a.member("@bob:b", room) == "join"
    agree(room, a, b)


def test_an_invite_is_taken_back() -> None:
    town, a, b = two()
    room = a.create("alice", preset="private_chat")
    town.run(a.remote.invite(a.rooms.get(room), "@alice:a", "@bob:b", {"membership": "invite"}))
    town.run(a.membership.kick(a.who("alice"), room, "@bob:b", None))
    town.settle()
    assert b.memberships.rooms_of("@bob:b")[room].membership == "leave"


def test_declining_an_invite() -> None:
    town, a, b = two()
    room = a.create("alice", preset="private_chat")
    town.run(a.remote.invite(a.rooms.get(room), "@alice:a", "@bob:b", {"membership": "invite"}))
    town.run(b.remote.leave("@bob:b", room, {"membership": "leave"}))
    town.settle()
    assert a.member("@bob:b", room) == "leave"


def test_knocking() -> None:
    town, a, b = two()
    room = a.create("alice")
    a.state("alice", room, "m.room.join_rules", {"join_rule": "knock"})
    town.run(b.remote.knock("@bob:b", room, ["a"], {"membership": "knock"}))
    town.settle()
    assert a.member("@bob:b", room) == "knock"


def test_restricted_join() -> None:
    town, a, b = two()
    club = a.create("alice")
    b.join("bob", club, via=a)
    room = a.create("alice")
    allow = [{"type": "m.room_membership", "room_id": club}]
    a.state("alice", room, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    b.join("bob", room, via=a)
    town.settle()
    member = a.rooms.get(room).state("m.room.member", "@bob:b")
    assert member is not None and member.content["join_authorised_via_users_server"] == "@alice:a"
    assert {"a", "b"} <= set(member.pdu["signatures"])
    agree(room, a, b)


def test_what_the_erased_have_said_is_handed_out_redacted() -> None:
    """To servers that were there as to those that come later; state stands, and so does what others said."""
    town, a, b = two()
    room = a.create("alice")
    a.join("zoe", room)
    early = a.say("alice", room, "early")
    b.join("bob", room, via=a)
    town.settle()
    said = a.say("alice", room, "secret")
    redaction = town.run(a.sending.redact(a.who("alice"), room, early, "typo", None))
    a.state("alice", room, "m.room.topic", {"topic": "kept"})
    others = a.say("zoe", room, "plain")
    town.settle()

    def bodies(server: Twin) -> dict[str, Any]:
        found = server.request(a, "GET", f"/_matrix/federation/v1/backfill/{room}?v={others}&limit=20")["pdus"]
        missing = server.request(a, "POST", f"/_matrix/federation/v1/get_missing_events/{room}",
                                 {"earliest_events": [], "latest_events": [others], "limit": 20})["events"]  # fmt: skip
        version = a.rooms.get(room).version
        contents = {Event.from_pdu(pdu, version).event_id: pdu["content"] for pdu in found}
        assert {said: contents[said]}.items() <= {Event.from_pdu(p, version).event_id: p["content"] for p in missing}.items()
        assert server.request(a, "GET", f"/_matrix/federation/v1/event/{said}")["pdus"][0]["content"] == contents[said]
        return contents

    assert bodies(b)[said]["body"] == "secret"
    batch = a.rooms.log.begin()
    Departures(a.rooms, town.clock.callLater).bring(batch, {"user_id": "@alice:a", "erase": True})
    town.run(a.rooms.log.append(batch))
    town.settle()
    c = town.server("c")
    c.join("carl", room, via=a)
    town.settle()
    for server in (b, c):
        contents = bodies(server)
        assert contents[said] == {} and contents[others]["body"] == "plain" and contents[redaction]["reason"] == "typo"
        assert {"topic": "kept"} in contents.values()
    assert b.bodies(room)[-2:] == ["secret", "plain"]


def test_what_could_not_be_placed_is_tried_again_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    town, a, b, room = together()
    with unheard(town, a):
        a.say("alice", room, "lost")

    async def nobody(*_: object, **__: object) -> None:
        raise PeerUnreachable("a", "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(b.client, "request", nobody)
        a.say("alice", room, "found")
        town.settle()
    untaken = b.federated.receive.untaken
    assert b.bodies(room) == [] and untaken.waiting == 1
    town.clock.advance(61)
    town.settle()
    assert b.bodies(room) == ["lost", "found"]
    assert not untaken.waiting
    agree(room, a, b)


def test_the_past_is_not_taken_for_what_is_new_because_of_a_hole_in_it() -> None:
    """Behind an event whose key cannot be had for the moment it does not show that it is the past."""
    town, a, b = two()
    c = town.server("c")
    room = a.create("alice")
    c.join("carol", room, via=a)
    town.settle()
    before = a.say("alice", room, "before")
    town.settle()
    c.say("carol", room, "hole")
    town.settle()
    b.join("bob", room, via=a)
    town.settle()
    with unheard(town, b):
        b.say("bob", room, "mine")
    with unheard(town, a):
        a.say("alice", room, "lost")
    town.keyless.add("c")
    a.say("alice", room, "found")
    town.settle()
    assert b.knows(before) == "unknown" and b.bodies(room) == ["mine"]
    town.keyless.clear()
    town.clock.advance(61)
    town.settle()
    assert b.knows(before) == "unknown" and b.bodies(room) == ["mine", "lost", "found"]


def test_what_could_not_be_checked_for_the_moment_is_tried_again() -> None:
    town, a, b, room = together()
    town.keyless.add("a")
    a.say("alice", room, "unsure")
    town.settle()
    assert b.bodies(room) == [] and b.federated.receive.untaken.waiting == 1
    town.keyless.clear()
    town.clock.advance(61)
    town.settle()
    assert b.bodies(room) == ["unsure"] and not b.federated.receive.untaken.waiting


def test_an_event_that_was_only_known_takes_its_place_when_it_comes() -> None:
    town, a, b, room = together()
    with unheard(town, a):
        topic = a.state("alice", room, "m.room.topic", {"topic": "unheard"})
        for number in range(40):
            a.say("alice", room, f"lost {number}")
    a.say("alice", room, "found")
    town.settle()
    assert b.knows(topic) == "outlier"
    event = a.rooms.event(topic)
    assert event is not None
    a.transaction(b, event)
    assert b.knows(topic) == "placed"


def test_a_turn_that_fails_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    town, a, b, room = together()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    with unheard(town, a):
        a.say("alice", room, "one")
    with monkeypatch.context() as patch:
        patch.setattr("storage.log.rooms.put_room", broken)
        event = a.rooms.event(a.rooms.get(room).meta.extremities[0][0])
        assert event is not None
        a.transaction(b, event)
    assert b.knows(event.event_id) == "unknown"
    a.say("alice", room, "two")
    town.settle()
    assert b.bodies(room) == ["one", "two"]
    agree(room, a, b)
