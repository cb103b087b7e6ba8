"""`folkmoot room explain` over the logs of servers that have disagreed: it names the event that decided, and the rule."""

from typing import Any

import pytest

from homeserver.admin.room_explanation import explain
from homeserver.admin.room_text import text
from homeserver.rooms.extremities import MAX_HEADS
from storage.log import removal
from tests.fakes.hostile import Hostile
from tests.fakes.town import Town, Twin

BOB = "@bob:b"


def told(server: Twin, room: str, user: str | None = None, event: str | None = None) -> dict[str, Any]:
    with server.log.snapshot() as view:
        facts = explain(view, room, user, event)
    assert facts["room_id"] in text(facts)
    return facts


def verdicts(server: Twin, room: str, user: str) -> dict[str, str]:
    return {entry["event_id"]: entry["verdict"] for entry in told(server, room, user)["user"]["history"]}


def member_event(server: Twin, room: str, user: str) -> str:
    return server.state_of(room)["m.room.member", user]


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def a(town: Town) -> Twin:
    return town.server("a")


@pytest.fixture
def b(town: Town) -> Twin:
    return town.server("b")


@pytest.fixture
def evil(town: Town) -> Hostile:
    return Hostile(town)


def shared(town: Town, a: Twin, b: Twin, version: str = "10") -> str:
    room = a.create("alice", version)
    b.join("bob", room, via=a)
    town.settle()
    return room


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
def test_a_ban_that_wins_where_forks_meet(town: Town, a: Twin, b: Twin, version: str) -> None:
    room = shared(town, a, b, version)
    joined = member_event(b, room, BOB)
    town.cut.add(frozenset("ab"))
    town.run(a.membership.ban(a.who("alice"), room, BOB, "noise"))
    ban = member_event(a, room, BOB)
    renamed = b.state("bob", room, "m.room.member", {"membership": "join", "displayname": "Robert"}, BOB)
    town.cut.clear()
    town.settle()
    assert member_event(a, room, BOB) == member_event(b, room, BOB) == ban

    here = told(b, room, BOB)["user"]
    assert (here["membership"], here["decided_by"]["event_id"], here["decided_by"]["sender"]) == ("ban", ban, "@alice:a")
    assert verdicts(b, room, BOB) == {joined: "accepted", renamed: "lost", ban: "accepted"}
    (lost,) = [entry for entry in here["history"] if entry["event_id"] == renamed]
    assert lost["by"] == ban and "banned" in lost["why"]
    assert here["conclusion"].startswith(f"{BOB} is not joined: banned by @alice:a, by {ban}; the join {renamed} lost to {ban}: ")

    there = told(a, room, BOB)["user"]
    assert verdicts(a, room, BOB) == {joined: "accepted", ban: "accepted", renamed: "soft-failed"}
    assert f"the join {renamed} was soft-failed: by the room's state when it came: " in there["conclusion"]
    assert f"replaced by {ban}" in [entry["why"] for entry in there["history"] if entry["event_id"] == joined]


def test_of_two_topics_that_meet_one_is_there_instead(town: Town, a: Twin, b: Twin) -> None:
    """Two topics meet: one of them loses when the other one comes."""
    room = shared(town, a, b)
    a.state("alice", room, "m.room.power_levels", {"users": {"@alice:a": 100, BOB: 50}, "state_default": 0})
    town.settle()
    town.cut.add(frozenset("ab"))
    left = a.state("alice", room, "m.room.topic", {"topic": "left"})
    town.clock.advance(5)
    right = b.state("bob", room, "m.room.topic", {"topic": "right"})
    town.cut.clear()
    town.settle()
    winner = a.state_of(room)["m.room.topic", ""]
    loser = left if winner == right else right
    facts = told(a, room, event=loser)["event"]
    assert (facts["in_current_state"], facts["instead"], facts["flags"]) == (False, winner, [])
    assert told(a, room, event=winner)["event"]["in_current_state"]
    came = told(a, room, event=right)["event"]
    assert [change["after"] for change in came["state_change"]] == [right]
    assert [change["before"] for change in came["room_state_change"]] == ([left] if winner == right else [])


def test_a_join_without_an_invite_is_rejected_by_a_named_rule(town: Town, a: Twin, evil: Hostile) -> None:
    room = a.create("alice", preset="private_chat")
    town.run(a.remote.invite(a.rooms.get(room), "@alice:a", "@mallory:evil", {"membership": "invite"}))
    evil.join("mallory", room, via=a)
    town.settle()
    friend = "@friend:evil"
    kinds = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", "")]
    cited = [evil.state_of(room)[key] for key in kinds]
    forced = evil.event(
        room, type="m.room.member", sender=friend, state_key=friend, content={"membership": "join"}, auth_event_ids=cited
    )
    evil.transaction(a, forced)
    assert a.knows(forced.event_id) == "rejected"
    user = told(a, room, friend)["user"]
    assert user["decided_by"] is None and verdicts(a, room, friend) == {forced.event_id: "rejected"}
    said = f"{friend} is not joined: no event here makes {friend} a member; the join {forced.event_id} was rejected: "
    assert user["conclusion"].startswith(said)
    assert "by the events that it cites: " in user["conclusion"]
    event = told(a, room, event=forced.event_id)["event"]
    assert event["flags"] == ["rejected", "outlier"] and event["why"] in user["conclusion"]
    assert [one["type"] for one in event["auth_events"]] == [type_ for type_, _ in kinds]


def test_an_event_that_the_state_before_it_forbids(town: Town, a: Twin, evil: Hostile) -> None:
    """It cites what once was true: the rule that fails is that of the state before it."""
    room = a.create("alice")
    evil.join("mallory", room, via=a)
    town.settle()
    kinds = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@mallory:evil")]
    old = [evil.state_of(room)[key] for key in kinds]
    town.run(a.membership.kick(a.who("alice"), room, "@mallory:evil", None))
    town.settle()
    heads = list(a.rooms.get(room).meta.extremities)
    late = evil.event(room, auth_event_ids=old, prev_event_ids=[id_ for id_, _ in heads], depth=heads[0][1] + 1)
    evil.transaction(a, late)
    event = told(a, room, event=late.event_id)["event"]
    assert "rejected" in event["flags"] and event["why"] == "by the state before it: The sender is not in the room"
    assert event["prev_events"] == [{"event_id": heads[0][0], "here": True, "type": "m.room.member", "flags": []}]


def test_what_hides_without_being_refused_says_why(town: Town, a: Twin, evil: Hostile) -> None:
    room = a.create("alice")
    evil.join("mallory", room, via=a)
    town.settle()
    said = a.say("alice", room, "stays")
    town.settle()
    redaction = evil.event(room, type="m.room.redaction", redacts=said, content={})
    evil.transaction(a, redaction)
    assert "may not redact" in told(a, room, event=redaction.event_id)["event"]["why"]
    heads = [head for head, _ in evil.rooms.get(room).meta.extremities]
    forks = [evil.event(room, content={"body": f"{number}"}, prev_event_ids=heads) for number in range(MAX_HEADS + 1)]
    evil.transaction(a, *forks, txn="forks")
    town.settle()
    (dummy,) = a.heads(room)
    facts = told(a, room, event=dummy)
    assert facts["event"]["flags"] == ["soft-failed"] and "loose ends" in facts["event"]["why"]
    assert [head["event_id"] for head in facts["room"]["forward_extremities"]] == [dummy]
    assert len(facts["event"]["prev_events"]) > MAX_HEADS


def test_events_that_are_missing_elsewhere_or_redacted(town: Town, a: Twin, b: Twin) -> None:
    room, other = a.create("alice"), a.create("alice")
    unseen = a.say("alice", room, "before the join")
    b.join("bob", room, via=a)
    town.settle()
    said = a.say("alice", room, "oops")
    redaction = town.run(a.sending.redact(a.who("alice"), room, said, None, None))
    town.settle()
    event = told(a, room, event=said)["event"]
    assert event["flags"] == ["redacted"] and event["redacted_by"] == redaction
    assert told(a, room, event="$nowhere")["event"] == {"event_id": "$nowhere", "here": False, "other_room": None}
    assert told(a, other, event=said)["event"] == {"event_id": said, "here": False, "other_room": room}
    join = told(b, room, event=member_event(b, room, BOB))["event"]
    assert join["prev_events"] == [{"event_id": unseen, "here": False, "type": None, "flags": []}]
    assert "missing" in text(told(b, room, event=member_event(b, room, BOB)))


def test_those_who_left_were_removed_knocked_or_were_invited(town: Town, a: Twin, b: Twin) -> None:
    room = shared(town, a, b)
    a.state("alice", room, "m.room.join_rules", {"join_rule": "knock"})
    town.run(a.membership.invite(a.who("alice"), room, "@zoe:a", None))
    town.run(b.remote.knock("@carol:b", room, ["a"], {"membership": "knock"}))
    town.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()

    def said(user: str) -> str:
        found: str = told(a, room, user)["user"]["conclusion"]
        return found

    assert said("@alice:a") == f"@alice:a is joined, by {member_event(a, room, '@alice:a')}."
    assert said("@zoe:a") == f"@zoe:a is not joined but invited by @alice:a, by {member_event(a, room, '@zoe:a')}."
    assert said("@carol:b") == f"@carol:b is not joined but has knocked, by {member_event(a, room, '@carol:b')}."
    assert said(BOB) == f"{BOB} is not joined: has left, by {member_event(a, room, BOB)}."
    town.run(a.membership.kick(a.who("alice"), room, "@zoe:a", None))
    assert said("@zoe:a") == f"@zoe:a is not joined: removed by @alice:a, by {member_event(a, room, '@zoe:a')}."
    assert said("@nobody:c") == "@nobody:c is not joined: no event here makes @nobody:c a member."
    room_facts = told(a, room)["room"]
    assert (room_facts["version"], room_facts["joined"], room_facts["servers"]) == ("10", 1, ["a"])
    assert room_facts["state_size"] == len(a.state_of(room))
    assert room_facts["state_root"] == a.rooms.get(room).meta.state_root.hex()


def test_rooms_that_are_unknown_blocked_or_only_heard_of(town: Town, a: Twin, b: Twin) -> None:
    facts = told(a, "!nowhere:a", "@alice:a", "$x")
    assert facts["room"] is None and "knows nothing of the room" in facts["user"]["conclusion"]
    room = a.create("alice", preset="private_chat")
    town.run(a.remote.invite(a.rooms.get(room), "@alice:a", BOB, {"membership": "invite"}))
    town.settle()
    invited = told(b, room, BOB)["user"]
    assert invited["membership"] == "invite" and "invited by @alice:a" in invited["conclusion"]
    assert invited["conclusion"].endswith("This server is not in the room.")
    assert [entry["verdict"] for entry in invited["history"]] == ["told"]
    assert "heard of it in an invite" in text(told(b, room, BOB))
    batch = a.log.begin()
    removal.block(batch, room, "spam")
    town.run(a.log.append(batch))
    assert told(a, room)["blocked"] == "spam" and "(spam)" in text(told(a, room))
