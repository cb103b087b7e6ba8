"""Rooms that are used while the rest of their state is still arriving."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater

from federation.rules.errors import MatrixError
from federation.wire.errors import RequestRefused
from homeserver.admin.room_explanation import explain
from homeserver.admin.room_text import text
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.rooms import partial as rooms_partial
from homeserver.rooms.deletion import Deletion
from homeserver.rooms.hosts import Hosts
from homeserver.rooms.partial import MAX_PAUSE, WAIT_SECONDS
from homeserver.rooms.replay import STEP, Replay
from storage.log.partial_joins import partial_join, partial_joins
from storage.log.removal import removal_of
from tests.fakes.hostile import Hostile
from tests.fakes.town import Town, Twin

V1 = "/_matrix/federation/v1"


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    # So few at a time that these small rooms come in over many turns.
    monkeypatch.setattr("homeserver.rooms.told.PART", 4)
    monkeypatch.setattr("homeserver.rooms.outliers.STATE_CHUNK", 3)
    monkeypatch.setattr("homeserver.rooms.current_state.PART", 2)
    town = Town()

    def later(clock: Any, delay: float) -> "Deferred[None]":
        """A turn takes some time, so that a kill of b may fall between two of them; who was killed has no next one."""
        running = town.servers.get("b")
        return deferLater(clock, delay or 0.001).addCallback(
            lambda _: None if town.servers.get("b") is running else Deferred()
        )

    for module in ("told", "outliers", "current_state", "partial"):
        monkeypatch.setattr(f"homeserver.rooms.{module}.deferLater", later)
    return town


@pytest.fixture
def a(town: Town) -> Twin:
    return town.server("a")


@pytest.fixture
def b(town: Town) -> Twin:
    server = town.server("b")
    server.membership.remote = server.remote
    return server


@pytest.fixture
def c(town: Town) -> Twin:
    return town.server("c")


@pytest.fixture
def room(town: Town, a: Twin, c: Twin) -> str:
    """A room with a name, so that no member is told for want of one."""
    room_id = a.create("alice", m_room_name={"name": "large"})
    for number in range(12):
        a.join(f"user{number}", room_id)
    c.join("carol", room_id, via=a)
    town.settle()
    pass_time(town, MAX_PAUSE)
    assert not partial(c, room_id)
    return room_id


def hold(server: Twin) -> Callable[[], None]:
    """Nobody tells the server a state, until what is returned is called."""
    peers: Any = server.federated.gaps._peers
    real = peers.state_ids

    async def state_ids(*_: Any) -> Any:
        raise MatrixError(502, "M_UNKNOWN", "later")

    def release() -> None:
        peers.state_ids = real

    peers.state_ids = state_ids
    return release


def partial(server: Twin, room: str) -> bool:
    mark = partial_join(server.log, room) is not None
    assert mark == server.rooms.get(room).meta.partial_state
    return mark


def pass_time(town: Town, seconds: float) -> None:
    end = town.clock.seconds() + seconds
    while (upto := min((call.getTime() for call in town.clock.getDelayedCalls()), default=end)) < end:
        town.clock.advance(max(0.0, upto - town.clock.seconds()))
    town.clock.advance(end - town.clock.seconds())


def test_a_room_is_used_at_once_and_completed_behind(town: Town, a: Twin, b: Twin, c: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    assert partial(b, room) and b.rooms.get(room).meta.joined == 1
    assert b.member("@alice:a", room) is None
    b.say("bob", room, "hello from b")
    a.say("alice", room, "hello from a")
    c.say("carol", room, "hello from c")
    town.settle()
    assert sorted(c.bodies(room)) == sorted(b.bodies(room)) == ["hello from a", "hello from b", "hello from c"]
    assert b.member("@carol:c", room) == b.member("@alice:a", room) == "join", "who speaks becomes known"
    assert partial(b, room)
    release()
    pass_time(town, MAX_PAUSE)
    assert not partial(b, room)
    assert b.state_of(room) == a.state_of(room) and b.heads(room) == a.heads(room)
    assert b.rooms.get(room).meta.joined == a.rooms.get(room).meta.joined == 15
    assert b.memberships.joined_users(room) == a.memberships.joined_users(room)


def test_events_go_to_the_servers_that_were_named_until_the_members_are_known(
    town: Town, a: Twin, b: Twin, room: str
) -> None:
    hosts = Hosts("b", b.memberships, told=b.federated.partial.servers_of)
    b.feed.follow(hosts.follow)
    release = hold(b)
    b.join("bob", room, via=a)
    assert set(hosts.servers(room)) == {"a", "c"}
    release()
    pass_time(town, MAX_PAUSE)
    assert dict(hosts.servers(room)) == {"a": 13, "c": 1}


def test_the_servers_that_were_named_are_known_also_where_somebody_asked_before_the_join(
    town: Town, a: Twin, b: Twin, room: str
) -> None:
    hosts = Hosts("b", b.memberships, told=b.federated.partial.servers_of)
    b.feed.follow(hosts.follow)
    b.feed.follow(lambda entries: [hosts.servers(room) for _ in entries])
    hold(b)
    b.join("bob", room, via=a)
    assert set(hosts.servers(room)) == {"a", "c"}


def test_what_was_said_in_a_stay_whose_state_never_became_whole_is_judged_by_a_whole_one(
    town: Town, a: Twin, b: Twin, room: str
) -> None:
    """Without its members the state says that nobody who speaks is in the room."""
    release = hold(b)
    b.join("bob", room, via=a)
    b.run(b.membership.leave(b.who("bob"), room, None))
    said = a.say("alice", room, "to the end of a stay")
    town.settle()
    pass_time(town, MAX_PAUSE)
    assert not partial(b, room) and b.knows(said) == "unknown"
    release()
    b.join("bob", room, via=a)
    pass_time(town, MAX_PAUSE)
    town.run(b.federated.history.fetch(room, 20))
    assert b.knows(said) == "placed"
    assert b.rooms.get(room).meta.unfinished == [(1, 2)]
    a.say("alice", room, "after")
    town.settle()
    assert b.bodies(room)[-2:] == ["to the end of a stay", "after"] and b.state_of(room) == a.state_of(room)


def test_i09_completion_goes_on_after_a_restart(town: Town, a: Twin, b: Twin, room: str) -> None:
    hold(b)
    b.join("bob", room, via=a)
    said = b.say("bob", room, "before the crash")
    town.settle()
    again = b.restart()
    assert partial(again, room)
    again.federated.partial.resume()
    a.say("alice", room, "after the crash")
    town.settle()
    pass_time(town, MAX_PAUSE)
    assert not partial(again, room)
    assert again.state_of(room) == a.state_of(room)
    assert again.knows(said) == "placed" and again.bodies(room) == ["before the crash", "after the crash"]


@pytest.mark.parametrize("moment", range(1, 60, 3))
def test_i09_killed_at_any_moment_of_the_completion(town: Town, a: Twin, b: Twin, room: str, moment: int) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    for number in range(3):
        b.say("bob", room, str(number))
    release()
    town.settle()
    for _ in range(moment):
        town._step()
    again = b.restart()
    again.federated.partial.resume()
    pass_time(town, MAX_PAUSE)
    assert not partial(again, room)
    assert again.state_of(room) == a.state_of(room) and again.bodies(room) == ["0", "1", "2"]
    assert again.rooms.get(room).meta.joined == 15


def whole_states(server: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server asks for no member to be omitted."""
    real = server.calls.send_join

    async def send_join(*rest: Any, omit_members: bool) -> Any:
        return await real(*rest, omit_members=False)

    monkeypatch.setattr(server.calls, "send_join", send_join)


def test_more_members_than_events_are_remembered(
    town: Town, a: Twin, b: Twin, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_states(b, monkeypatch)
    b.rooms.MAX_EVENTS = 5
    b.join("bob", room, via=a)
    town.settle()
    assert b.state_of(room) == a.state_of(room) and b.rooms.get(room).meta.joined == 15
    assert b.memberships.joined_users(room) == a.memberships.joined_users(room)
    assert b.memberships.is_joined("@bob:b", room)
    assert b.federated.servers.of(b.rooms.get(room)) == {"a": 13, "b": 1, "c": 1}
    a.say("alice", room, "hello")
    town.settle()
    assert b.bodies(room) == ["hello"]


@pytest.mark.parametrize("moment", range(1, 60, 4))
def test_i09_killed_at_any_moment_of_a_join(
    town: Town, a: Twin, b: Twin, room: str, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_states(b, monkeypatch)
    ensureDeferred(b.membership.join(b.who("bob"), room, {}, None, None, ["a"])).addErrback(lambda _: None)
    for _ in range(moment):
        town._step()
    town.cut.add(frozenset("ab"))
    a.run(a.membership.kick(a.who("alice"), room, "@user3:a", None))
    town.cut.clear()
    again = b.restart()
    again.membership.remote = again.remote
    if not again.memberships.is_joined("@bob:b", room):
        begun = again.rooms.find(room)
        assert begun is None or "b" not in again.federated.servers.of(begun)
        again.join("bob", room, via=a)
    again.federated.partial.resume()
    a.say("alice", room, "hello")
    town.settle()
    pass_time(town, MAX_PAUSE)
    assert again.bodies(room)[-1:] == ["hello"] and again.state_of(room) == a.state_of(room)
    assert again.memberships.joined_users(room) == a.memberships.joined_users(room)
    assert again.rooms.get(room).meta.joined == a.rooms.get(room).meta.joined == 14


def test_another_server_is_asked_when_the_first_is_gone(town: Town, a: Twin, b: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    town.settle()
    town.cut.add(frozenset("ab"))
    release()
    pass_time(town, MAX_PAUSE)
    assert not partial(b, room) and b.state_of(room) == a.state_of(room)


@pytest.mark.parametrize("follow_up", [False, True])
def test_what_was_let_in_for_want_of_knowledge_is_found_out(
    town: Town, a: Twin, b: Twin, room: str, follow_up: bool
) -> None:
    evil = Hostile(town)
    evil.join("mallory", room, via=a)
    town.settle()
    town.cut.add(frozenset(("a", "evil")))
    a.run(a.membership.ban(a.who("alice"), room, "@mallory:evil", None))
    release = hold(b)
    b.join("bob", room, via=a)
    peers: Any = b.federated.gaps._peers

    async def event_auth(*_: Any) -> list[Any]:
        return [event.pdu for id_ in evil.state_of(room).values() if (event := evil.rooms.event(id_)) is not None]

    peers.event_auth = event_auth
    late = evil.event(room, prev_event_ids=list(b.heads(room)), content={"body": "banned"})
    evil.transaction(b, late)
    assert b.bodies(room) == ["banned"] and b.member("@mallory:evil", room) == "join"
    if follow_up:
        b.say("bob", room, "on top of it")
    release()
    pass_time(town, MAX_PAUSE)
    assert not partial(b, room)
    assert b.knows(late.event_id) == "rejected"
    assert b.bodies(room) == (["on top of it"] if follow_up else [])
    assert b.member("@mallory:evil", room) == "ban"
    assert late.event_id not in b.heads(room) and len(b.heads(room)) == 1
    assert "@mallory:evil" not in b.memberships.joined_users(room)


def test_leaving_while_the_state_is_not_complete(town: Town, a: Twin, b: Twin, c: Twin, room: str) -> None:
    hold(b)
    b.join("bob", room, via=a)
    b.run(b.membership.leave(b.who("bob"), room, None))
    town.settle()
    assert a.member("@bob:b", room) == c.member("@bob:b", room) == "leave"
    pass_time(town, MAX_PAUSE)
    assert not partial(b, room)
    b.join("bob", room, via=a)
    town.settle()
    assert b.state_of(room) == a.state_of(room), "a room that was known before comes in whole"


def test_whoever_needs_all_members_waits(town: Town, a: Twin, b: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    answers: list[Any] = []
    ensureDeferred(b.federated.partial.whole(room)).addBoth(answers.append)
    pass_time(town, WAIT_SECONDS - 1)
    assert answers == []
    pass_time(town, 2)
    assert answers[0].value.status == 503
    release()
    ensureDeferred(b.federated.partial.whole(room)).addBoth(answers.append)
    pass_time(town, WAIT_SECONDS - 1)
    assert answers[1:] == [None] and b.rooms.get(room).meta.joined == 15
    assert town.run(b.federated.partial.whole(room)) is None


def test_other_servers_are_not_told_half_a_state(town: Town, a: Twin, b: Twin, c: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    said = b.say("bob", room, "hi")
    c.say("carol", room, "so that b knows of carol")
    town.settle()
    paths = [f"{V1}/state/{room}?event_id={said}", f"{V1}/state_ids/{room}?event_id={said}"]
    for path in [*paths, f"{V1}/make_join/{room}/@cleo:c?ver=10"]:
        with pytest.raises(RequestRefused) as refused:
            c.request(b, "GET", path)
        assert refused.value.status == 404
    release()
    pass_time(town, MAX_PAUSE)
    assert len(c.request(b, "GET", paths[1])["pdu_ids"]) == len(a.state_of(room))


def test_a_second_user_is_let_in_by_who_knows_the_members(town: Town, a: Twin, b: Twin, room: str) -> None:
    a.run(a.membership.ban(a.who("alice"), room, "@bert:b", None))
    town.settle()
    hold(b)
    b.join("bob", room, via=a)
    with pytest.raises(MatrixError) as refused:
        b.join("bert", room)
    assert refused.value.status == 403
    b.join("bea", room)
    assert partial(b, room) and b.member("@bea:b", room) == "join"


def test_older_messages_are_fetched_while_members_are_missing(town: Town, a: Twin, b: Twin, room: str) -> None:
    a.say("alice", room, "old")
    town.settle()
    hold(b)
    b.join("bob", room, via=a)
    town.requests.clear()
    town.run(b.federated.history.fetch(room, 10))
    assert ("b", "a", "GET", f"{V1}/backfill/{room.replace('!', '%21').replace(':', '%3A')}") in town.requests


def test_devices_of_members_that_become_known_are_to_be_asked_for(town: Town, a: Twin, b: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)
    pass_time(town, 1)
    before = b.log.position
    lists = DeviceListChanges(b.memberships, b.feed)
    release()
    pass_time(town, MAX_PAUSE)
    with b.log.snapshot() as view:
        changed, left = lists.between(view, "@bob:b", before, b.log.position)
    assert "@carol:c" in changed and "@user3:a" in changed and left == []


def test_an_explanation_says_what_is_still_missing(town: Town, a: Twin, b: Twin, room: str) -> None:
    release = hold(b)
    b.join("bob", room, via=a)

    def told() -> Any:
        with b.log.snapshot() as view:
            facts = explain(view, room, "@user1:a")
        assert ("the state is not complete" in text(facts)) == partial(b, room)
        return facts["room"]["partial_state"], facts["user"]["conclusion"]

    waiting, said = told()
    assert waiting["servers"][0] == "a" and waiting["joined_by"] == b.state_of(room)["m.room.member", "@bob:b"]
    assert "no event here makes" in said and "still being fetched" in said
    release()
    pass_time(town, MAX_PAUSE)
    assert told() == (None, f"@user1:a is joined, by {a.state_of(room)['m.room.member', '@user1:a']}.")


@pytest.mark.parametrize("moment", ["while it is fetched", "while it is judged", "before a restart"])
def test_a_room_is_deleted_while_it_is_arriving(
    town: Town, a: Twin, b: Twin, room: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left to be fetched, no error is reported, and it can be joined anew."""
    reported: list[str] = []
    monkeypatch.setattr(rooms_partial._report, "failure", lambda text, *_, **__: reported.append(text))
    release = hold(b)
    b.join("bob", room, via=a)
    for number in range(3 * STEP if moment == "while it is judged" else 1):
        b.say("bob", room, f"{number}")
    town.settle()
    assert partial(b, room)
    if moment == "while it is judged":
        steps: list[bool] = []
        real = Replay.step
        monkeypatch.setattr(Replay, "step", lambda replay: bool(steps.append(True)) or real(replay))
        release()
        while not steps:
            town.clock.advance(0.01)
        assert partial(b, room)
    deletion = Deletion(b.rooms, town.clock)
    deletion.forget += [b.memberships.forget_room]
    town.run(deletion.delete(room))
    if moment == "before a restart":
        b = b.restart()
        b.membership.remote = b.remote
        Deletion(b.rooms, town.clock).wake()
        b.federated.partial.resume()
    for _ in range(3000):
        if removal_of(b.log, room) is None:
            break
        town.clock.advance(0.02)
    release()
    pass_time(town, 2 * MAX_PAUSE)
    with b.log.snapshot() as view:
        assert partial_joins(view) == []
    assert b.rooms.find(room) is None and reported == []
    town.settle()
    assert a.member("@bob:b", room) == "leave"
    b.join("bob", room, via=a)
    pass_time(town, MAX_PAUSE)
    town.settle()
    assert not partial(b, room) and b.state_of(room) == a.state_of(room)
