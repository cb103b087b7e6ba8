"""Scenes of coming and going through other servers, with the engine that real clients reach."""

from typing import Any

import pytest

from federation.rules.errors import MatrixError
from federation.wire.errors import RequestRefused
from homeserver.rooms.at_once import some_at_once
from homeserver.rooms.membership import Membership
from storage.log import rooms as room_log
from tests.fakes.town import Town, Twin


def town_of(*names: str) -> tuple[Any, ...]:
    town = Town()
    servers = [town.server(name) for name in names]
    for server in servers:
        server.membership.remote = server.remote
    return (town, *servers)


def record(server: Twin, name: str, room: str) -> Any:
    return room_log.membership_in(server.log, server.user(name), room)


def join(server: Twin, name: str, room: str, *via: str) -> None:
    server.run(server.membership.join(server.who(name), room, {}, None, via=via))


def test_an_invite_is_signed_by_the_other_server_and_leads_into_the_room() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    a.run(a.membership.invite(a.who("alice"), room, "@bob:b", "come", is_direct=True))
    town.settle()
    event = a.rooms.get(room).state("m.room.member", "@bob:b")
    assert event is not None
    assert set(event.pdu["signatures"]) == {"a", "b"}
    assert record(b, "bob", room).membership == "invite"
    join(b, "bob", room)
    town.settle()
    assert a.member("@bob:b", room) == b.member("@bob:b", room) == "join"


def test_an_invite_put_as_state_is_told_to_the_other_server() -> None:
    _town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    a.run(a.membership.set_member(a.who("alice"), room, "@bob:b", {"membership": "invite"}))
    assert record(b, "bob", room).membership == "invite"


def test_an_invite_can_be_declined() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    a.run(a.membership.invite(a.who("alice"), room, "@bob:b", None))
    b.run(b.membership.leave(b.who("bob"), room, "no"))
    town.settle()
    assert a.member("@bob:b", room) == "leave"
    assert record(b, "bob", room).membership == "leave"


def test_an_invite_can_be_declined_when_nobody_answers() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    a.run(a.membership.invite(a.who("alice"), room, "@bob:b", None))
    town.settle()
    town.cut.add(frozenset("ab"))
    b.run(b.membership.leave(b.who("bob"), room, None))
    assert record(b, "bob", room).membership == "leave"


def test_nobody_is_invited_whose_server_says_no() -> None:
    _, a, _ = town_of("a", "b")
    room = a.create("alice")
    with pytest.raises(MatrixError) as refused:
        a.run(a.membership.invite(a.who("alice"), room, "@nobody:b", None))
    assert refused.value.status == 403
    assert a.member("@nobody:b", room) is None


def test_a_join_tries_one_server_after_the_other() -> None:
    town, a, b, _ = town_of("a", "b", "c")
    room = a.create("alice")
    town.cut.add(frozenset("bc"))
    join(b, "bob", room, "c", "gone", "a")
    assert b.member("@bob:b", room) == "join"


def test_a_closed_room_stays_closed() -> None:
    _, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    with pytest.raises(MatrixError) as refused:
        join(b, "bob", room, "a")
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert b.rooms.find(room) is None


def test_a_room_that_nobody_can_be_asked_about_is_unknown() -> None:
    _, _, b = town_of("a", "b")
    with pytest.raises(MatrixError) as refused:
        join(b, "bob", "!nowhere:b")
    assert refused.value.status == 404
    with pytest.raises(MatrixError):
        join(b, "bob", "!nowhere:a")


@pytest.mark.parametrize("version", ["7", "10", "12"])
def test_knocking_and_being_let_in(version: str) -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", version, preset="private_chat", m_room_join_rules={"join_rule": "knock"})
    b.run(b.membership.knock(b.who("bob"), room, "please", ["a"]))
    town.settle()
    assert a.member("@bob:b", room) == "knock"
    knock = record(b, "bob", room)
    assert knock.membership == "knock"
    assert b"m.room.join_rules" in knock.stripped_state
    a.run(a.membership.invite(a.who("alice"), room, "@bob:b", None))
    town.settle()
    assert record(b, "bob", room).membership == "invite"
    join(b, "bob", room)
    assert b.member("@bob:b", room) == "join"


def test_a_knock_can_be_taken_back() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat", m_room_join_rules={"join_rule": "knock"})
    b.run(b.membership.knock(b.who("bob"), room, None, ["a"]))
    b.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()
    assert a.member("@bob:b", room) == "leave"


def restricted(a: Twin, space: str, version: str = "10") -> str:
    allow = [{"type": "m.room_membership", "room_id": space}]
    rules = {"join_rule": "restricted", "allow": allow}
    return a.create("alice", version, preset="private_chat", m_room_join_rules=rules)


@pytest.mark.parametrize("version", ["8", "10", "11", "12"])
def test_a_restricted_room_is_joined_with_the_other_servers_signature(version: str) -> None:
    town, a, b = town_of("a", "b")
    space = a.create("alice")
    room = restricted(a, space, version)
    with pytest.raises(MatrixError):
        join(b, "bob", room, "a")
    join(b, "bob", space, "a")
    town.settle()
    join(b, "bob", room, "a")
    town.settle()
    event = b.rooms.get(room).state("m.room.member", "@bob:b")
    assert event is not None
    assert set(event.pdu["signatures"]) == {"a", "b"}
    assert event.content["join_authorised_via_users_server"] == "@alice:a"
    assert a.member("@bob:b", room) == "join"


def test_a_second_user_is_let_in_by_the_other_server_into_a_room_that_we_are_in() -> None:
    town, a, b = town_of("a", "b")
    space = a.create("alice")
    room = restricted(a, space)
    a.state("alice", room, "m.room.power_levels", {"invite": 50, "users": {"@alice:a": 100}})
    for name in ("bob", "ben"):
        join(b, name, space, "a")
        town.settle()
        join(b, name, room, "a")
        town.settle()
    assert a.member("@ben:b", room) == b.member("@ben:b", room) == "join"
    assert a.heads(room) == b.heads(room)
    assert a.state_of(room) == b.state_of(room)


def test_two_users_join_at_the_same_time() -> None:
    from twisted.internet.defer import ensureDeferred, gatherResults

    town, a, b = town_of("a", "b")
    room = a.create("alice")
    both = [ensureDeferred(b.membership.join(b.who(name), room, {}, None, via=["a"])) for name in ("bob", "ben")]
    b.run(gatherResults(both))
    town.settle()
    for server in (a, b):
        assert server.member("@bob:b", room) == server.member("@ben:b", room) == "join"
    assert a.heads(room) == b.heads(room)


def test_an_alias_of_another_server_leads_there() -> None:
    _, a, b = town_of("a", "b")
    room = a.create("alice")
    batch = a.log.begin()
    a.aliases.put(batch, "#hall:a", room, "@alice:a")
    a.run(a.log.append(batch))
    found, servers = b.run(b.membership.find_room("#hall:a"))
    assert (found, servers) == (room, ["a"])
    with pytest.raises(MatrixError) as refused:
        b.run(b.membership.find_room("#cellar:a"))
    assert refused.value.status == 404
    assert isinstance(b.membership, Membership)


def test_who_left_comes_back_to_the_room_as_it_is_now() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice")
    join(b, "bob", room, "a")
    b.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()
    for number in range(5):
        a.state("alice", room, "m.room.topic", {"topic": f"{number}"})
    join(b, "bob", room)
    town.settle()
    assert b.rooms.get(room).content("m.room.topic") == {"topic": "4"}
    a.say("alice", room, "welcome back")
    town.settle()
    assert b.bodies(room)[-1] == "welcome back"
    assert a.heads(room) == b.heads(room)


def test_an_invite_declined_unheard_ends_in_a_leave_of_ones_own() -> None:
    town, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    a.run(a.membership.invite(a.who("alice"), room, "@bob:b", None))
    town.settle()
    town.cut.add(frozenset("ab"))
    b.run(b.membership.leave(b.who("bob"), room, "no"))
    event = b.rooms.event(record(b, "bob", room).event_id)
    assert event is not None
    assert (event.sender, event.content) == ("@bob:b", {"membership": "leave", "reason": "no"})


def test_a_knock_from_elsewhere_is_stored_with_its_event() -> None:
    _, a, b = town_of("a", "b")
    room = a.create("alice", preset="private_chat", m_room_join_rules={"join_rule": "knock"})
    b.run(b.membership.knock(b.who("bob"), room, "please", ["a"]))
    event = b.rooms.event(record(b, "bob", room).event_id)
    assert event is not None and event.content["membership"] == "knock"


def test_the_version_that_a_room_has_is_passed_on_when_it_is_not_known() -> None:
    _, a, b = town_of("a", "b")
    room = a.create("alice", "10")

    async def make(*_: Any) -> Any:
        raise RequestRefused("a", 400, "M_INCOMPATIBLE_ROOM_VERSION", "no", room_version="future")

    b.calls.make = make
    with pytest.raises(MatrixError) as refused:
        join(b, "bob", room, "a")
    assert refused.value.body()["room_version"] == "future"


@pytest.mark.parametrize(("spoil", "status"), [("signature", 502), ("float", 400)])
def test_the_answer_to_an_invite_is_verified(spoil: str, status: int) -> None:
    _, a, _b = town_of("a", "b")
    room = a.create("alice", preset="private_chat")
    ask = a.calls.invite

    async def invite(*args: Any) -> Any:
        answer = await ask(*args)
        if spoil == "signature":
            key_id, signature = next(iter(answer.event["signatures"]["b"].items()))
            answer.event["signatures"]["b"][key_id] = "A" * 80 + signature[80:]
        else:
            answer.event["content"]["bad"] = 1.5
        return answer

    a.calls.invite = invite
    with pytest.raises(MatrixError) as refused:
        a.run(a.membership.invite(a.who("alice"), room, "@bob:b", None))
    assert refused.value.status == status
    assert a.member("@bob:b", room) is None


def test_many_are_invited_together() -> None:
    """Each invite has its place in the room, whatever order the answers came in."""
    town, a, b, _c = town_of("a", "b", "c")
    room = a.create("alice")
    town.weather.delay = 3.0
    invited = [f"@u{n}:{server}" for n in range(10) for server in "bc"]
    a.run(some_at_once(invited, lambda user_id: a.membership.invite(a.who("alice"), room, user_id, None)))
    assert {a.member(user_id, room) for user_id in invited} == {"invite"}
    join(b, "u0", room)
    for _ in range(30):  # the members come after the room
        town.settle()
    assert b.state_of(room) == a.state_of(room)
