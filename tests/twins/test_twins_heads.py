"""The heads of a room that receives events from elsewhere, and what a peer may tell of the places between."""

from typing import Any

import pytest

from federation.rules.errors import MatrixError
from homeserver.rooms.extremities import MAX_HEADS
from homeserver.rooms.gaps import MAX_STATES
from homeserver.rooms.peers import PeerState
from tests.fakes.hostile import Hostile
from tests.fakes.town import Town, Twin

LEVELS = "m.room.power_levels"


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


def fork(a: Twin, evil: Hostile, room: str) -> None:
    """More heads than are left alone."""
    evil.transaction(a, *[evil.event(room, content={"body": str(number)}) for number in range(MAX_HEADS + 1)])


def test_what_ties_heads_up_is_not_shown(a: Twin, evil: Hostile, room: str) -> None:
    fork(a, evil, room)
    (head,) = a.heads(room)
    assert a.knows(head) == "soft-failed"


def test_heads_are_tied_up_by_whoever_may_send(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    for name in ("aaron", "bob", "zoe"):
        a.join(name, room)
    a.state("alice", room, LEVELS, {"users": {"@alice:a": 100, "@mallory:evil": 50}, "events_default": 50})
    town.settle()
    fork(a, evil, room)
    assert len(a.heads(room)) == 1


@pytest.mark.parametrize("fate", ["soft-failed", "rejected"])
def test_c10_heads_are_covered_through_events_that_were_not_taken(
    town: Town, a: Twin, evil: Hostile, room: str, fate: str
) -> None:
    good = Hostile(town, "b")
    good.join("mallory", room, via=a)
    a.state("alice", room, LEVELS, {"users": {"@alice:a": 100, "@mallory:b": 100}})
    town.settle()
    start = list(a.heads(room))
    first = evil.event(room, prev_event_ids=start)
    evil.transaction(a, first)
    ban = good.event(room, prev_event_ids=start, type="m.room.member", state_key="@mallory:evil", content={"membership": "ban"})
    good.transaction(a, ban, txn="1")
    assert a.heads(room) == {first.event_id, ban.event_id}
    if fate == "rejected":
        levels = {"users": {"@mallory:evil": 100}}
        between = evil.event(room, prev_event_ids=[first.event_id], type=LEVELS, state_key="", content=levels)
    else:
        between = evil.event(room, prev_event_ids=[first.event_id])
    position = a.rooms.get(room).meta.last_position
    evil.transaction(a, between, txn="2")
    assert a.knows(between.event_id) == fate
    assert a.heads(room) == {first.event_id, ban.event_id}
    assert a.rooms.get(room).meta.last_position == position, "clients were told of nothing"
    after = good.event(room, prev_event_ids=[between.event_id])
    good.transaction(a, after, txn="2")
    assert a.heads(room) == {ban.event_id, after.event_id}


def test_what_comes_behind_a_gap_is_no_head(town: Town, a: Twin, evil: Hostile, room: str) -> None:
    hidden = [evil.event(room)]
    for _ in range(3):
        hidden.append(evil.event(room, prev_event_ids=[hidden[-1].event_id]))
    early, late, middle, last = hidden

    async def missing_events(*_: Any) -> list[Any]:
        return [middle.pdu]

    async def state_ids(*_: Any) -> PeerState:
        return PeerState(list(evil.state_of(room).values()), [])

    async def event(_server: str, event_id: str) -> Any:
        return late.pdu

    peers = a.federated.gaps._peers
    peers.missing_events, peers.state_ids, peers.event = missing_events, state_ids, event  # type: ignore[method-assign]
    evil.transaction(a, last)
    heads = a.heads(room)
    assert last.event_id in heads
    evil.transaction(a, early, late, txn="2")
    assert a.knows(late.event_id) == "placed"
    assert late.event_id not in a.heads(room) and last.event_id in a.heads(room)


def told(a: Twin, evil: Hostile, room: str, pdu: Any) -> list[str]:
    """Let the peer tell its own state and this event, whatever is asked for; returns a list of what is asked."""
    asked: list[str] = []

    async def state_ids(_server: str, _room: str, event_id: str) -> PeerState:
        asked.append(event_id)
        return PeerState(list(evil.state_of(room).values()), [])

    async def event(*_: Any) -> Any:
        return pdu

    peers = a.federated.gaps._peers
    peers.state_ids, peers.event = state_ids, event  # type: ignore[method-assign]
    return asked


def test_d01_an_event_that_was_not_asked_for_is_not_taken_for_the_one_that_was(a: Twin, evil: Hostile, room: str) -> None:
    other = evil.event(room, type="test", state_key="", content={})
    told(a, evil, room, other.pdu)
    with pytest.raises(MatrixError) as caught:
        a.run(a.federated.gaps.state_after("evil", room, "$asked"))
    assert caught.value.status == 502


def test_c05_a_rejected_event_changes_no_state_that_is_told(a: Twin, evil: Hostile, room: str) -> None:
    coup = evil.event(room, type=LEVELS, state_key="", content={"users": {"@mallory:evil": 100}})
    told(a, evil, room, coup.pdu)
    root = a.run(a.federated.gaps.state_after("evil", room, coup.event_id))
    assert a.knows(coup.event_id) == "rejected"
    assert a.rooms.get(room).state_map.get(root, LEVELS, "") == a.state_of(room)[(LEVELS, "")]


def test_d09_states_are_fetched_for_few_places_only(a: Twin, evil: Hostile, room: str) -> None:
    hidden = evil.event(room)
    asked = told(a, evil, room, hidden.pdu)
    wide = evil.event(room, prev_event_ids=[hidden.event_id, *(f"$unknown{number}" for number in range(12))])
    middle = [evil.event(room, prev_event_ids=[f"$unknown{n}", f"$unknown{n + 1}"], content={"body": str(n)}) for n in range(12)]
    last = evil.event(room, prev_event_ids=[one.event_id for one in (wide, *middle)])

    async def missing_events(*_: Any) -> list[Any]:
        return [wide.pdu, *(one.pdu for one in middle)]

    a.federated.gaps._peers.missing_events = missing_events  # type: ignore[method-assign]
    assert "error" in evil.transaction(a, last)["pdus"][last.event_id]
    assert 0 < len(asked) <= MAX_STATES
