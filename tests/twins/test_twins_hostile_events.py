"""Events that no honest server makes, rightly hashed and signed by one that is not (reliability cases A, C and D)."""

from typing import Any

import pytest

from federation.rules.canonical_json import encode_lax
from federation.rules.errors import MatrixError
from federation.rules.event_format import MAX_PDU_BYTES
from tests.fakes.hostile import Hostile
from tests.fakes.town import Town, Twin

MALLORY = "@mallory:evil"


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def a(town: Town) -> Twin:
    return town.server("a")


@pytest.fixture
def evil(town: Town, a: Twin) -> Hostile:
    return Hostile(town)


def shared(town: Town, a: Twin, evil: Hostile, version: str = "10") -> str:
    """A room of alice's in which mallory may do anything that is not the creator's alone."""
    room = a.create("alice", version)
    evil.join("mallory", room, via=a)
    users = {MALLORY: 100} if version == "12" else {MALLORY: 100, "@alice:a": 100}
    a.state("alice", room, "m.room.power_levels", {"users": users})
    town.settle()
    return room


def nothing_is_stored(a: Twin, evil: Hostile, room: str, pdu: dict[str, Any]) -> None:
    """The event alone is dropped: what is beside it in the transaction is kept."""
    before = a.rooms.get(room).meta.last_seq
    good = evil.event(room, content={"body": "fine"})
    results = evil.transaction(a, pdu, good)["pdus"]
    assert results.pop(good.event_id) == {}
    assert all("error" in result for result in results.values())
    assert a.rooms.get(room).meta.last_seq == before + 1
    assert a.bodies(room) == ["fine"]


def test_what_is_crafted_well_is_taken(town: Town, a: Twin, evil: Hostile) -> None:
    """Or the tests below would prove nothing."""
    room = shared(town, a, evil)
    assert {"{}"} == {str(result) for result in evil.transaction(a, evil.crafted(room, unknown="key"))["pdus"].values()}
    assert a.bodies(room) == ["evil"]


@pytest.mark.parametrize(
    "keys",
    [{"depth": 2**53}, {"depth": 1.5}, {"origin_server_ts": 1.5}, {"origin_server_ts": -(2**53)}, {"unknown": 0.5}]
    + [{"content": {"body": "x", "n": number}} for number in (2**53, -(2**53), 0.5, [{"deep": 1.5}])],
    ids=str,
)
def test_a02_numbers_that_canonical_json_lacks(town: Town, a: Twin, evil: Hostile, keys: dict[str, Any]) -> None:
    room = shared(town, a, evil)
    nothing_is_stored(a, evil, room, evil.crafted(room, **keys))


@pytest.mark.parametrize("key", ["depth", "origin_server_ts"])
def test_a03_booleans_for_integers(town: Town, a: Twin, evil: Hostile, key: str) -> None:
    room = shared(town, a, evil)
    nothing_is_stored(a, evil, room, evil.crafted(room, **{key: True}))


@pytest.mark.parametrize(
    "keys",
    [{"content": None}, {"content": []}, {"auth_events": None}, {"auth_events": "x"}, {"prev_events": [1]}, {"state_key": 5},
     {"type": None}, {"room_id": ["x"]}, {"sender": {}}],
    ids=str,
)  # fmt: skip
def test_a09_keys_of_other_types(town: Town, a: Twin, evil: Hostile, keys: dict[str, Any]) -> None:
    room = shared(town, a, evil)
    nothing_is_stored(a, evil, room, evil.crafted(room, **keys))


def test_a10_the_largest_event_and_one_byte_more(town: Town, a: Twin, evil: Hostile) -> None:
    room = shared(town, a, evil)
    empty = len(encode_lax(evil.crafted(room, content={"body": ""})))
    largest, larger = (evil.crafted(room, content={"body": "x" * (MAX_PDU_BYTES - empty + more)}) for more in (0, 1))
    assert len(encode_lax(largest)) == MAX_PDU_BYTES
    nothing_is_stored(a, evil, room, larger)
    evil.transaction(a, largest, txn="2")
    assert len(a.bodies(room)) == 2


@pytest.mark.parametrize("key", ["type", "state_key"])
def test_a11_identifiers_are_measured_in_bytes(town: Town, a: Twin, evil: Hostile, key: str) -> None:
    room = shared(town, a, evil)
    nothing_is_stored(a, evil, room, evil.crafted(room, **{key: "\U0001f600" * 64}))
    results = evil.transaction(a, evil.crafted(room, **{key: "\U0001f600" * 63}), txn="2")["pdus"]
    assert [*results.values()] == [{}] and len(a.heads(room)) == 2


@pytest.mark.parametrize("sender", ["mallory", "@mallory", "@mallory:", ":evil", "@m:evil:99999", "@m:evil/..", "@m:ev il"])
def test_a12_senders_that_are_no_users(town: Town, a: Twin, evil: Hostile, sender: str) -> None:
    room = shared(town, a, evil)
    nothing_is_stored(a, evil, room, evil.crafted(room, sender=sender))


@pytest.mark.parametrize(
    ("version", "level", "verdict"),
    [("9", "50", "placed"), ("10", "50", "rejected"), ("10", 50, "placed"), ("9", True, "rejected"), ("10", True, "rejected"),
     ("10", [], "rejected"), ("9", {}, "rejected"), ("10", None, "rejected"), ("12", "50", "rejected")],
)  # fmt: skip
@pytest.mark.parametrize("key", ["ban", "state_default"])
def test_c02_levels_of_every_type(
    town: Town, a: Twin, evil: Hostile, version: str, level: Any, verdict: str, key: str
) -> None:
    room = shared(town, a, evil, version)
    content = {**a.rooms.get(room).content("m.room.power_levels"), key: level}
    event = evil.event(room, type="m.room.power_levels", state_key="", content=content)
    evil.transaction(a, event)
    assert a.knows(event.event_id) == verdict


def test_c04_the_order_of_arrival_changes_nothing(town: Town, a: Twin, evil: Hostile) -> None:
    b = town.server("b")
    room = shared(town, a, evil)
    b.join("bob", room, via=a)
    town.settle()
    forks = [evil.event(room, type="m.room.topic", state_key="", content={"topic": f"{n}"}) for n in range(3)]
    forks.append(evil.event(room, type="m.room.member", state_key="@bob:b", content={"membership": "ban"}))
    forks[-1] = evil.event(
        room, type="m.room.member", state_key="@bob:b", content={"membership": "ban"},
        auth_event_ids=[*forks[-1].auth_event_ids, evil.state_of(room)["m.room.member", "@bob:b"]],
    )  # fmt: skip
    forks.append(evil.event(room, type="m.room.join_rules", state_key="", content={"join_rule": "invite"}))
    evil.transaction(a, *forks)
    evil.transaction(b, *reversed(forks))
    town.settle()
    assert a.heads(room) == b.heads(room) == {event.event_id for event in forks}
    assert a.state_of(room) == b.state_of(room)
    assert a.member("@bob:b", room) == b.member("@bob:b", room) == "ban"


def test_c07_nobody_stands_above_the_creator(town: Town, a: Twin, evil: Hostile) -> None:
    room = shared(town, a, evil, "12")
    levels = a.rooms.get(room).content("m.room.power_levels")
    coup = {**levels, "users": {MALLORY: 100, "@alice:a": 0}}
    named = evil.event(room, type="m.room.power_levels", state_key="", content=coup)
    auth = [*evil.event(room).auth_event_ids, evil.state_of(room)["m.room.member", "@alice:a"]]
    kicked = evil.event(
        room, type="m.room.member", state_key="@alice:a", content={"membership": "leave"}, auth_event_ids=auth
    )
    evil.transaction(a, named, kicked)
    assert a.knows(named.event_id) == a.knows(kicked.event_id) == "rejected"
    assert a.member("@alice:a", room) == "join"


@pytest.mark.parametrize("version", ["6", "10", "11", "12"])
def test_c08_redacting_what_holds_a_room_together(town: Town, a: Twin, evil: Hostile, version: str) -> None:
    room = shared(town, a, evil, version)
    kinds = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", ""), ("m.room.member", MALLORY)]
    before = a.state_of(room)
    levels = dict(a.rooms.get(room).content("m.room.power_levels"))
    redactions = [evil.event(room, type="m.room.redaction", redacts=before[kind], content={}) for kind in kinds]
    evil.transaction(a, *redactions)
    again = a.restart()
    assert again.state_of(room) == before
    now = again.rooms.get(room)
    assert now.version.id == version and now.meta.version == version
    assert now.content("m.room.power_levels")["users"] == levels["users"]
    assert now.content("m.room.join_rules")["join_rule"] == "public"
    assert again.member(MALLORY, room) == "join"
    again.say("alice", room, "still here")


@pytest.mark.parametrize(
    "change",
    [{"type": "m.room.power_levels"}, {"sender": "@alice:a2"}, {"state_key": MALLORY}, {"room_id": "!other:evil"},
     {"content": {"membership": "leave"}}],
    ids=str,
)  # fmt: skip
def test_d05_a_lying_resident_gets_no_signature(town: Town, a: Twin, evil: Hostile, change: dict[str, Any]) -> None:
    room = evil.create("mallory")
    evil.lies("make_join", lambda answer: {**answer, "event": {**answer["event"], **change}})
    with pytest.raises(MatrixError):
        a.join("alice", room, via=evil)
    sent = [path for origin, _, method, path in town.requests if origin == "a" and method == "PUT"]
    assert sent == [], "nothing with our signature has left"


def test_d05_a_voucher_is_all_that_is_taken_of_a_template_s_content(town: Town, a: Twin, evil: Hostile) -> None:
    room = evil.create("mallory")
    added = {"membership": "join", "displayname": "Fool", "reason": "I agree to everything"}
    evil.lies("make_join", lambda answer: {**answer, "event": {**answer["event"], "content": added, "extra": 1}})
    a.join("alice", room, via=evil)
    town.settle()
    member = evil.rooms.get(room).state("m.room.member", "@alice:a")
    assert member is not None and dict(member.content) == {"membership": "join"} and "extra" not in member.pdu
