"""What a hostile peer tries, case by case (reliability cases C and D)."""

from typing import Any

import orjson
import pytest

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.wire.errors import RequestRefused
from homeserver.rooms.extremities import DUMMY, MAX_HEADS
from homeserver.rooms.gaps import REST_SECONDS
from homeserver.rooms.peers import PeerState
from homeserver.rooms.remote_template import event_from, version_of
from homeserver.rooms.room import MAX_DEPTH, MAX_PREV_EVENTS, Room
from homeserver.rooms.state_at import States
from storage.log import events as event_log
from storage.log.receipts import receipts_between
from tests.fakes.hostile import Hostile
from tests.fakes.town import Town, Twin

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def a(town: Town) -> Twin:
    return town.server("a")


@pytest.fixture
def evil(town: Town, a: Twin) -> Hostile:
    return Hostile(town)


@pytest.fixture
def room(town: Town, a: Twin, evil: Hostile) -> str:
    room_id = a.create("alice")
    evil.join("mallory", room_id, via=a)
    town.settle()
    return room_id


def refused(call: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        call()
    return caught.value


BAD = ["unsigned_event", "wrongly_signed_event", "rehashed_event"]


@pytest.mark.parametrize("how", BAD)
def test_d01_transaction_with_a_bad_event(how: str, a: Twin, evil: Hostile, room: str) -> None:
    pdu = getattr(evil, how)(room)
    good = evil.event(room, content={"body": "fine"})
    results = evil.transaction(a, pdu, good)["pdus"]
    event_id = Event.from_pdu(pdu, a.rooms.get(room).version).event_id
    assert "error" in results[event_id] and results[good.event_id] == {}
    assert a.knows(event_id) == "unknown" and a.knows(good.event_id) == "placed"


@pytest.mark.parametrize("how", BAD)
def test_d01_missing_events_state_and_auth(how: str, town: Town, a: Twin, evil: Hostile, room: str) -> None:
    """Events that the peer answers with are checked like those it pushes."""
    bad = getattr(evil, how)(room)
    bad_id = Event.from_pdu(bad, a.rooms.get(room).version).event_id
    child = evil.event(room, prev_event_ids=[bad_id])

    async def answer(*_: Any, **__: Any) -> Any:
        return [bad]

    async def single(*_: Any, **__: Any) -> Any:
        return bad

    peers = a.federated.gaps._peers
    peers.missing_events = peers.event_auth = answer  # type: ignore[method-assign]
    peers.event = single  # type: ignore[method-assign]
    assert "error" in evil.transaction(a, child)["pdus"][child.event_id]
    assert a.knows(bad_id) == "unknown" and a.knows(child.event_id) == "unknown"


@pytest.mark.parametrize("how", [*BAD, "altered_event"])
@pytest.mark.parametrize("path", ["send_join", "send_leave", "send_knock", "invite"])
def test_d01_d05_handshakes(how: str, path: str, a: Twin, evil: Hostile, room: str) -> None:
    """An event that is not what the handshake is about is refused, whatever its signature."""
    pdu = getattr(evil, how)(room)
    version = V1 if path == "send_knock" else V2
    body = {"room_version": "10", "event": pdu} if path == "invite" else pdu
    error = refused(lambda: evil.request(a, "PUT", f"{version}/{path}/{room}/$x", body))
    assert error.status == 400 and error.errcode == "M_INVALID_PARAM"


def test_d01_altered_content_arrives_redacted(a: Twin, evil: Hostile, room: str) -> None:
    pdu = evil.altered_event(room)
    event_id = Event.from_pdu(pdu, a.rooms.get(room).version).event_id
    assert evil.transaction(a, pdu)["pdus"][event_id] == {}
    assert a.bodies(room) == ["(redacted)"]


def test_d02_rooms_have_to_agree(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    secret = a.create("alice", preset="private_chat")
    inside = a.say("alice", secret, "secret")
    for path in (f"{V1}/state/{room}?event_id={inside}", f"{V1}/state_ids/{room}?event_id={inside}"):
        unknown = refused(lambda path=path: evil.request(a, "GET", path.replace(inside, "$unknown")))
        assert refused(lambda path=path: evil.request(a, "GET", path)).args == unknown.args
    auth = refused(lambda: evil.request(a, "GET", f"{V1}/event_auth/{room}/{inside}"))
    assert auth.args == refused(lambda: evil.request(a, "GET", f"{V1}/event_auth/{room}/$unknown")).args
    event = refused(lambda: evil.request(a, "GET", f"{V1}/event/{inside}"))
    assert event.args == refused(lambda: evil.request(a, "GET", f"{V1}/event/$unknown")).args
    assert evil.request(a, "GET", f"{V1}/backfill/{room}?v={inside}&limit=5")["pdus"] == []
    body = {"latest_events": [inside], "earliest_events": []}
    assert evil.request(a, "POST", f"{V1}/get_missing_events/{room}", body)["events"] == []


def test_d03_messages_about_others_are_dropped(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    said = a.say("alice", room, "hi")
    typing = {"edu_type": "m.typing", "content": {"room_id": room, "user_id": "@alice:a", "typing": True}}
    own = {"edu_type": "m.typing", "content": {"room_id": room, "user_id": "@mallory:evil", "typing": True}}
    receipt = {"@alice:a": {"event_ids": [said], "data": {"ts": 1}}, "@mallory:evil": {"event_ids": [said], "data": {}}}
    edus = [
        typing,
        {"edu_type": "m.receipt", "content": {room: {"m.read": receipt}}},
        {"edu_type": "m.direct_to_device", "content": {"sender": "@alice:a", "type": "t", "message_id": "1", "messages": {}}},
        {"edu_type": "m.device_list_update", "content": {"user_id": "@alice:a", "device_id": "D", "stream_id": 1}},
        "nonsense",
        {"edu_type": "m.receipt", "content": {room: {"m.read": 5}}},
        own,
    ]
    event = evil.event(room)
    assert evil.transaction(a, event, edus=edus) == {"pdus": {event.event_id: {}}}
    assert a.typed == [(room, "@mallory:evil")]
    with a.log.snapshot() as view:
        assert [found.user_id for found in receipts_between(view, room, 0, a.log.position)] == ["@mallory:evil"]


def test_d04_invites_that_are_none(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    def invite(event: Event, version: str = "10", **rest: Any) -> RequestRefused:
        body = {"room_version": version, "event": event.pdu, **rest}
        return refused(lambda: evil.request(a, "PUT", f"{V2}/invite/{event.room_id}/{event.event_id}", body))

    def member(membership: str, target: str, **changes: Any) -> Event:
        content = {"membership": membership}
        return evil.event(room, type="m.room.member", content=content, state_key=target, **changes)

    assert invite(member("ban", "@alice:a")).errcode == "M_INVALID_PARAM"
    assert invite(member("invite", "@carol:c")).errcode == "M_INVALID_PARAM"
    assert invite(evil.event(room, type="m.room.topic", state_key="@alice:a")).errcode == "M_INVALID_PARAM"
    assert invite(member("invite", "@alice:a", sender="@bob:b")).errcode == "M_INVALID_PARAM"
    assert invite(member("invite", "@alice:a"), version="none").errcode == "M_INCOMPATIBLE_ROOM_VERSION"
    assert invite(member("invite", "@nobody:a")).status == 403
    modern = evil.create("mallory", "12")
    event = evil.event(modern, type="m.room.member", content={"membership": "invite"}, state_key="@alice:a")
    assert invite(event, version="12").status == 400
    other_room = evil.create("mallory", "12")
    assert other_room != modern
    other = evil.rooms.get(other_room).state("m.room.create")
    assert other is not None
    assert invite(event, version="12", invite_room_state=[other.pdu]).errcode == "M_INVALID_PARAM"


def test_d06_replayed_transactions(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    event, other = evil.event(room), evil.event(room, content={"body": "other"})
    first = evil.transaction(a, event, txn="1")
    assert evil.transaction(a, other, txn="1") == first
    assert a.knows(other.event_id) == "unknown"
    again = a.restart()
    assert evil.transaction(again, other, txn="1") == first
    assert again.knows(other.event_id) == "unknown"
    b = town.server("b")
    b.join("bob", room, via=again)
    town.settle()
    mine = b.draft("bob", room, "m.room.message", {"body": "of another server"})
    assert b.transaction(again, mine, txn="1")["pdus"] == {mine.event_id: {}}


def test_d06_replayed_while_in_flight(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    town.weather.duplicates = 1.0
    event = evil.event(room)
    assert evil.transaction(a, event)["pdus"] == {event.event_id: {}}
    assert a.bodies(room) == ["evil"]


def test_d07_outsiders_get_nothing(town: Town, a: Twin, evil: Hostile) -> None:
    room = a.create("alice", m_room_history__visibility={"history_visibility": "world_readable"})
    said = a.say("alice", room, "inside")
    for path in (
        f"/state/{room}?event_id={said}",
        f"/state_ids/{room}?event_id={said}",
        f"/event_auth/{room}/{said}",
        f"/backfill/{room}?v={said}&limit=10",
        f"/timestamp_to_event/{room}?ts=0&dir=f",
    ):
        error = refused(lambda path=path: evil.request(a, "GET", V1 + path))
        unknown = refused(lambda path=path: evil.request(a, "GET", V1 + path.replace(room, "!none:a")))
        assert error.status == 403 and error.args == unknown.args, path
    assert refused(lambda: evil.request(a, "GET", f"{V1}/event/{said}")).status == 404
    body = {"latest_events": [said], "earliest_events": []}
    assert refused(lambda: evil.request(a, "POST", f"{V1}/get_missing_events/{room}", body)).status == 403


def test_d07_a_server_that_left(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    during = a.say("alice", room, "during")
    town.run(evil.membership.leave(evil.who("mallory"), room, None))
    town.settle()
    after = a.say("alice", room, "after")
    assert refused(lambda: evil.request(a, "GET", f"{V1}/backfill/{room}?v={after}&limit=10")).status == 403
    assert refused(lambda: evil.request(a, "GET", f"{V1}/event/{after}")).status == 404
    assert len(evil.request(a, "GET", f"{V1}/event/{during}")["pdus"]) == 1


def test_d07_history_from_before_the_join_is_redacted(town: Town, a: Twin, evil: Hostile) -> None:
    room = a.create("alice")
    a.state("alice", room, "m.room.history_visibility", {"history_visibility": "joined"})
    before = a.say("alice", room, "before")
    evil.join("mallory", room, via=a)
    pdu = evil.request(a, "GET", f"{V1}/backfill/{room}?v={before}&limit=1")["pdus"][0]
    assert pdu["content"] == {}


def test_d08_only_our_own_users(a: Twin, evil: Hostile) -> None:
    assert evil.request(a, "GET", f"{V1}/query/profile?user_id=@alice:a") == {"displayname": "alice"}
    assert refused(lambda: evil.request(a, "GET", f"{V1}/query/profile?user_id=@bob:b")).status == 400
    assert refused(lambda: evil.request(a, "GET", f"{V1}/user/devices/@bob:b")).status == 400
    for path, body in (("query", {"device_keys": {"@bob:b": []}}), ("claim", {"one_time_keys": {"@bob:b": {"D": "x"}}})):
        assert refused(lambda path=path, body=body: evil.request(a, "POST", f"{V1}/user/keys/{path}", body)).status == 403


def test_d09_unknown_ancestors_cost_one_fetch(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    other = a.create("alice")
    evil.join("mallory", other, via=a)
    town.requests.clear()
    flood = [evil.event(room, prev_event_ids=[f"$unknown{number}"]) for number in range(49)]
    fine = evil.event(other)
    results = evil.transaction(a, *flood, fine)["pdus"]
    assert all("error" in results[event.event_id] for event in flood) and results[fine.event_id] == {}
    asked = [path for origin, _, _, path in town.requests if origin == "a"]
    assert 1 <= len(asked) <= 3
    town.clock.advance(REST_SECONDS + 1)
    good = evil.event(room)
    assert evil.transaction(a, good, txn="2")["pdus"] == {good.event_id: {}}


def test_d10_extreme_numbers(a: Twin, evil: Hostile, room: str) -> None:
    said = a.say("alice", room, "hi")
    for limit in ("0", "-5", "999999999999999999999999"):
        assert len(evil.request(a, "GET", f"{V1}/backfill/{room}?v={said}&limit={limit}")["pdus"]) <= 100
    deep = evil.event(room, depth=2**53 - 1)
    assert evil.transaction(a, deep)["pdus"] == {deep.event_id: {}}
    assert a.knows(a.say("alice", room, "after")) == "placed"
    for depth in (2**53, -1, 2**62):
        results = evil.transaction(a, {**evil.event(room).pdu, "depth": depth}, txn=str(depth))["pdus"]
        assert all("error" in result for result in results.values())


def test_limits_of_a_transaction(a: Twin, evil: Hostile, room: str) -> None:
    assert refused(lambda: evil.transaction(a, *[evil.event(room)] * 51)).status == 400
    assert refused(lambda: evil.transaction(a, edus=[{}] * 101)).status == 400


def test_c03_auth_events_of_another_room_or_rejected(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    other = evil.create("mallory")
    foreign = evil.rooms.get(other).state("m.room.power_levels")
    assert foreign is not None
    good = evil.event(room)
    twice = evil.event(room, auth_event_ids=[*good.auth_event_ids, good.auth_event_ids[0]])
    bare = evil.event(room, auth_event_ids=[])
    results = evil.transaction(a, twice, bare)["pdus"]
    assert results == {twice.event_id: {}, bare.event_id: {}}, "rejected is dealt with"
    assert a.knows(twice.event_id) == a.knows(bare.event_id) == "rejected"
    elsewhere = evil.event(room, auth_event_ids=[*good.auth_event_ids[:1], foreign.event_id, good.auth_event_ids[2]])
    evil.transaction(a, elsewhere, txn="2")
    assert a.knows(elsewhere.event_id) in ("rejected", "unknown")


def test_c05_rejected_stays_out_of_the_state(a: Twin, evil: Hostile, room: str) -> None:
    levels = evil.event(room, type="m.room.power_levels", content={"users": {"@mallory:evil": 100}}, state_key="")
    after = evil.event(room, prev_event_ids=[levels.event_id])
    evil.transaction(a, levels, after)
    assert a.knows(levels.event_id) == "rejected"
    assert a.rooms.get(room).power_levels.user("@mallory:evil") == 0
    record = event_log.event_by_id(a.log, after.event_id)
    assert record is not None
    held = a.rooms.get(room).state_map.get(record.state_before, "m.room.power_levels", "")
    assert held != levels.event_id


def test_c09_redactions_before_their_target_and_in_circles(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    b = town.server("b")
    b.join("bob", room, via=a)
    town.settle()
    target = b.draft("bob", room, "m.room.message", {"body": "stays"})
    without_right = evil.event(room, type="m.room.redaction", redacts=target.event_id, content={})
    evil.transaction(a, without_right)
    b.transaction(a, target)
    assert a.bodies(room) == ["stays"]
    mine = evil.event(room, content={"body": "goes"})
    own = evil.event(room, type="m.room.redaction", redacts=mine.event_id, content={})
    evil.transaction(a, own, txn="2")
    evil.transaction(a, mine, txn="3")
    record = event_log.event_by_id(a.log, mine.event_id)
    assert record is not None and record.redacted_by == own.event_id
    back = evil.event(room, type="m.room.redaction", redacts=own.event_id, content={})
    evil.transaction(a, back, txn="4")
    assert event_log.event_by_id(a.log, own.event_id).redacted_by == back.event_id  # type: ignore[union-attr]


def test_c10_soft_failed_heads_leave_the_room_usable(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    town.cut.add(frozenset(("a", "evil")))
    town.run(a.membership.ban(a.who("alice"), room, "@mallory:evil", None))
    heads = a.heads(room)
    town.cut.clear()
    late = [evil.event(room, content={"body": str(number)}) for number in range(20)]
    evil.transaction(a, *late)
    assert {a.knows(event.event_id) for event in late} == {"soft-failed"}
    assert a.heads(room) == heads
    assert a.knows(a.say("alice", room, "still here")) == "placed"
    assert len(a.heads(room)) == 1


def test_c12_the_access_list_covers_events_and_messages(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    entries = [f"*.{number}.*.example" for number in range(1000)]
    town.cut.add(frozenset(("a", "evil")))
    a.state("alice", room, "m.room.server_acl", {"allow": ["*"], "deny": [*entries, "EVI?"]})
    town.cut.clear()
    event = evil.event(room)
    typing = {"edu_type": "m.typing", "content": {"room_id": room, "user_id": "@mallory:evil", "typing": True}}
    result = evil.transaction(a, event, edus=[typing])["pdus"]
    assert "error" in result[event.event_id] and a.typed == [] and a.knows(event.event_id) == "unknown"
    assert refused(lambda: evil.request(a, "GET", f"{V1}/make_join/{room}/@x:evil?ver=10")).status == 403
    assert refused(lambda: evil.request(a, "GET", f"{V1}/backfill/{room}?v=$x&limit=1")).status == 403


def test_too_many_heads_are_tied_up(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    branches = [evil.event(room, content={"body": str(number)}) for number in range(15)]
    evil.transaction(a, *branches)
    assert len(a.heads(room)) == 1
    assert len(a.bodies(room)) == 15


def test_c11_hundreds_of_forks_cost_a_bounded_resolution(
    a: Twin, evil: Hostile, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fork has a state of its own. What is compared at once stays within what one event can name."""
    widths: list[int] = []
    real = States._changes

    def counted(states: States, of: Room, roots: tuple[bytes, ...]) -> Any:
        widths.append(len(roots))
        return real(states, of, roots)

    monkeypatch.setattr(States, "_changes", counted)
    stem = list(evil.heads(room))
    me = "@mallory:evil"
    depth = 1
    for txn in range(6):
        forks = []
        for number in range(50):
            depth = depth * 2 % MAX_DEPTH + 1  # says that it is deep
            content = {"membership": "join", "displayname": f"{txn} {number}"}
            forks.append(
                evil.event(room, type="m.room.member", state_key=me, content=content, prev_event_ids=stem, depth=depth)
            )
        answered = evil.transaction(a, *forks, txn=str(txn))["pdus"]
        assert set(map(str, answered.values())) == {"{}"}
        assert len(a.heads(room)) <= MAX_HEADS
    assert max(widths) <= MAX_PREV_EVENTS
    assert len(widths) <= 2 * 300
    said = a.say("alice", room, "still here")
    record = event_log.event_by_id(a.log, said)
    assert record is not None and len(orjson.loads(record.pdu)["prev_events"]) <= MAX_HEADS
    assert a.heads(room) == {said}


def test_where_nobody_may_tie_heads_up_it_is_tried_once_for_a_transaction(
    town: Town, a: Twin, evil: Hostile, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a.state("alice", room, "m.room.power_levels", {"users": {"@mallory:evil": 100}, "events_default": 50})
    town.settle()
    tries: list[str] = []
    real = Room.local_joined
    monkeypatch.setattr(Room, "local_joined", lambda of: tries.append("") or real(of))
    forks = [evil.event(room, content={"body": f"{number}"}) for number in range(50)]
    assert len(evil.transaction(a, *forks)["pdus"]) == len(a.heads(room)) == 50
    assert len(tries) == 2, "in the middle, and at the end"


def test_the_oldest_heads_are_named_first(a: Twin, evil: Hostile, room: str) -> None:
    """An honest branch is taken up however many others claim to be deeper."""
    stem = list(evil.heads(room))
    honest = evil.event(room, content={"body": "honest"}, prev_event_ids=stem)
    forks = [evil.event(room, content={"body": f"{n}"}, prev_event_ids=stem, depth=10**9 + n) for n in range(40)]
    evil.transaction(a, honest, *forks[:9])
    evil.transaction(a, *forks[9:], txn="2")
    with a.log.snapshot() as view:
        meta = a.rooms.get(room).meta
        records = list(event_log.room_slice(view, meta.nid, 1, meta.last_seq + 1))
    dummies = [orjson.loads(record.pdu)["prev_events"] for record in records if record.type == DUMMY]
    assert honest.event_id in dummies[0] and max(map(len, dummies)) == MAX_PREV_EVENTS


def test_make_join_refusals(a: Twin, evil: Hostile, room: str) -> None:
    def make(user: str, ver: str = "10", kind: str = "join", where: str = room) -> RequestRefused:
        return refused(lambda: evil.request(a, "GET", f"{V1}/make_{kind}/{where}/{user}?ver={ver}"))

    assert make("@bob:b").status == 403
    assert make("@x:evil", ver="1").errcode == "M_INCOMPATIBLE_ROOM_VERSION"
    assert make("@x:evil", where="!none:a").status == 404
    assert make("@x:evil", kind="leave").status == 403
    assert make("@x:evil", kind="knock").status == 403
    local = a.create("alice", preset="private_chat")
    assert make("@x:evil", where=local).status == 403


def test_send_join_without_members(town: Town, a: Twin, evil: Hostile) -> None:
    room = a.create("alice")
    for number in range(10):
        a.join(f"user{number}", room)
    template = evil.request(a, "GET", f"{V1}/make_join/{room}/@mallory:evil?ver=10")["event"]
    join = event_from(evil.rooms, template, version_of("10"), room, "@mallory:evil", {"membership": "join"})
    path = f"{V2}/send_join/{room}/{join.event_id}?omit_members=true"
    answer = evil.request(a, "PUT", path, orjson.loads(join.json))
    assert answer["members_omitted"] is True and answer["servers_in_room"] == ["a"]
    assert sum(1 for pdu in answer["state"] if pdu["type"] == "m.room.member") == 5
    version = a.rooms.get(room).version
    told = {Event.from_pdu(pdu, version).event_id for pdu in answer["state"] + answer["auth_chain"]}
    cited = {id_ for pdu in answer["state"] + answer["auth_chain"] for id_ in pdu["auth_events"]}
    assert cited <= told
    depths = [pdu["depth"] for pdu in answer["auth_chain"]]
    assert depths == sorted(depths)


def test_d02_a_predecessor_of_another_room_leads_nowhere(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    other = a.create("alice")
    evil.join("mallory", other, via=a)
    town.settle()
    foreign = evil.event(other, content={"body": "of the other room"})
    evil.transaction(a, foreign)
    hidden = evil.event(room, content={"body": "between"}, prev_event_ids=[foreign.event_id])
    middle = evil.event(room, content={"body": "middle"}, prev_event_ids=[hidden.event_id])
    last = evil.event(room, content={"body": "last"}, prev_event_ids=[middle.event_id])
    state = [event_id for _, event_id in evil.state_of(room).items()]
    asked: list[list[str]] = []

    async def missing_events(*_: Any) -> list[Any]:
        return [middle.pdu]

    async def state_ids(*_: Any) -> PeerState:
        return PeerState(state, [])

    async def event(_server: str, _event_id: str) -> Any:
        return hidden.pdu

    async def backfill(_server: str, _room: str, starts: list[str], _limit: int) -> list[Any]:
        asked.append(starts)
        return [hidden.pdu]

    peers = a.federated.gaps._peers
    peers.missing_events, peers.state_ids, peers.event = missing_events, state_ids, event  # type: ignore[method-assign]
    peers.backfill = backfill  # type: ignore[method-assign]
    evil.transaction(a, last, txn="2")
    assert a.bodies(room) == ["middle", "last"]
    assert a.run(a.federated.history.fetch(room)) == 1
    assert a.bodies(room) == ["between", "middle", "last"]
    assert asked == [[hidden.event_id]] and not a.federated.history.has_more(room)


def test_d09_a_told_state_with_a_refused_event_takes_nothing_from_what_stands_on_it(
    town: Town, a: Twin, evil: Hostile, room: str
) -> None:
    levels = {"users": {"@alice:a": 100, "@mallory:evil": 100}}
    granted = a.state("alice", room, "m.room.power_levels", levels)
    town.settle()
    hidden = evil.event(room, type="test", state_key="hidden", content={"body": "a state event between"})
    coup = evil.event(room, type="m.room.power_levels", state_key="", content={"users": {"@mallory:evil": 100}})
    middle = evil.event(room, content={"body": "middle"}, prev_event_ids=[hidden.event_id])
    last = evil.event(room, content={"body": "last"}, prev_event_ids=[middle.event_id])
    state = {**evil.state_of(room), ("m.room.power_levels", ""): coup.event_id}
    by_id = {found.event_id: found.pdu for found in (hidden, coup)}

    async def missing_events(*_: Any) -> list[Any]:
        return [middle.pdu]

    async def state_ids(*_: Any) -> PeerState:
        return PeerState(list(state.values()), [])

    async def event(_server: str, event_id: str) -> Any:
        return by_id[event_id]

    peers = a.federated.gaps._peers
    peers.missing_events, peers.state_ids, peers.event = missing_events, state_ids, event  # type: ignore[method-assign]
    assert evil.transaction(a, last)["pdus"][last.event_id] == {}
    assert a.knows(coup.event_id) == "rejected"
    now = a.state_of(room)
    assert now[("test", "hidden")] == hidden.event_id and now[("m.room.power_levels", "")] == granted


def test_d09_a_state_of_which_an_event_cannot_be_had_for_the_moment_is_not_taken(
    town: Town, a: Twin, evil: Hostile, room: str
) -> None:
    a.state("alice", room, "m.room.power_levels", {"users": {"@alice:a": 100, "@mallory:evil": 50}})
    town.settle()
    hidden = evil.event(room, content={"body": "hidden"})
    middle = evil.event(room, content={"body": "middle"}, prev_event_ids=[hidden.event_id])
    last = evil.event(room, content={"body": "last"}, prev_event_ids=[middle.event_id])
    decorated = evil.event(room, type="test", state_key="", content={})
    state = [*evil.state_of(room).values(), decorated.event_id]
    troubles = [MatrixError(502, "M_UNKNOWN", "no answer")]

    async def missing_events(*_: Any) -> list[Any]:
        return [middle.pdu]

    async def state_ids(*_: Any) -> PeerState:
        return PeerState(state, [])

    async def event(_server: str, event_id: str) -> Any:
        if event_id == decorated.event_id and troubles:
            raise troubles.pop()
        return {hidden.event_id: hidden.pdu, decorated.event_id: decorated.pdu}[event_id]

    peers = a.federated.gaps._peers
    peers.missing_events, peers.state_ids, peers.event = missing_events, state_ids, event  # type: ignore[method-assign]
    assert "error" in evil.transaction(a, last)["pdus"][last.event_id]
    assert a.knows(middle.event_id) == "unknown"
    assert evil.transaction(a, last, txn="2")["pdus"][last.event_id] == {}
    assert a.state_of(room)[("test", "")] == decorated.event_id


def test_d09_a_state_with_an_event_that_cannot_be_checked_for_the_moment_is_not_taken(
    town: Town, a: Twin, evil: Hostile, room: str
) -> None:
    """Its server may be back in a minute. Left out of the state, what it says would be lost."""
    c = town.server("c")
    c.join("carol", room, via=a)
    town.settle()
    join = c.draft("carol", room, "m.room.member", {"membership": "join", "displayname": "C"}, c.user("carol"))
    hidden = evil.event(room, content={"body": "hidden"})
    middle = evil.event(room, content={"body": "middle"}, prev_event_ids=[hidden.event_id])
    last = evil.event(room, content={"body": "last"}, prev_event_ids=[middle.event_id])
    state = [*evil.state_of(room).values(), join.event_id]
    pdus = {one.event_id: one.pdu for one in (hidden, join)}

    async def missing_events(*_: Any) -> list[Any]:
        return [middle.pdu]

    async def state_ids(*_: Any) -> PeerState:
        return PeerState(state, [])

    async def event(_server: str, event_id: str) -> Any:
        return pdus[event_id]

    peers = a.federated.gaps._peers
    peers.missing_events, peers.state_ids, peers.event = missing_events, state_ids, event  # type: ignore[method-assign]
    town.keyless.add("c")
    assert "error" in evil.transaction(a, last)["pdus"][last.event_id]
    assert a.knows(middle.event_id) == "unknown"
    town.keyless.clear()
    assert evil.transaction(a, last, txn="2")["pdus"][last.event_id] == {}
    assert a.state_of(room)[("m.room.member", c.user("carol"))] == join.event_id


def test_d09_whoever_sends_an_event_has_what_is_before_it(a: Twin, evil: Hostile, room: str) -> None:
    """No state is taken from a peer for the place right before what it pushes: it would choose that state."""
    hidden = evil.event(room, content={"body": "never told"})
    late = evil.event(room, prev_event_ids=[hidden.event_id])
    evil.town.requests.clear()
    assert "error" in evil.transaction(a, late)["pdus"][late.event_id]
    asked = [path.split("/")[4] for origin, _, _, path in evil.town.requests if origin == "a"]
    assert asked == ["get_missing_events"]
    again = evil.event(room, prev_event_ids=[late.event_id])
    evil.transaction(a, again, txn="2")
    evil.transaction(a, again, txn="3")
    asked = [path.split("/")[4] for origin, _, _, path in evil.town.requests if origin == "a"]
    assert asked == ["get_missing_events"] * 2, "one failure is forgiven, the second is not"


def test_a_rejected_event_and_an_outlier_have_no_state_to_tell(a: Twin, evil: Hostile, room: str) -> None:
    levels = evil.event(room, type="m.room.power_levels", content={"users": {"@mallory:evil": 100}}, state_key="")
    evil.transaction(a, levels)
    assert a.knows(levels.event_id) == "rejected"
    for path in ("state", "state_ids"):
        error = refused(lambda path=path: evil.request(a, "GET", f"{V1}/{path}/{room}?event_id={levels.event_id}"))
        assert (error.status, error.errcode) == (404, "M_NOT_FOUND")


def test_c09_clients_are_not_told_of_a_redaction_that_does_not_apply(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    other = a.create("alice")
    evil.join("mallory", other, via=a)
    town.settle()
    target = evil.event(other, content={"body": "of the other room"})
    evil.transaction(a, target)
    across = evil.event(room, type="m.room.redaction", redacts=target.event_id, content={})
    said = a.say("alice", room, "stays")
    town.settle()
    without_right = evil.event(room, type="m.room.redaction", redacts=said, content={})
    coming = evil.event(room, content={"body": "goes"})
    early = evil.event(room, type="m.room.redaction", redacts=coming.event_id, content={})
    evil.transaction(a, across, without_right, early, txn="2")
    assert {a.knows(event.event_id) for event in (across, without_right, early)} == {"soft-failed"}
    assert early.event_id in a.heads(room), "it has its place in the graph"
    evil.transaction(a, coming, txn="3")
    assert a.knows(early.event_id) == "placed", "now it applies"
    assert a.bodies(room) == ["stays", "(redacted)"]
    assert a.bodies(other) == ["of the other room"]


@pytest.mark.parametrize("path", ["send_join", "send_leave"])
def test_d01_handshakes_without_a_content_hash_are_forbidden(path: str, a: Twin, evil: Hostile, room: str) -> None:
    pdu = {**evil.event(room).pdu, "hashes": {}}
    error = refused(lambda: evil.request(a, "PUT", f"{V2}/{path}/{room}/$x", pdu))
    assert (error.status, error.errcode) == (403, "M_FORBIDDEN")
