"""Cases C01 and C04: both implementations agree on rooms that grow at random, in every room version."""

import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import naive_auth
import naive_resolution
from room_graphs import RoomGraph

from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.state_resolution import resolve, resolve_conflicts, separate

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_c01_both_implementations_give_the_same_verdict_in_each_version(seed):
    for version in ROOM_VERSIONS.values():
        same_verdict(version, seed)


def same_verdict(version, seed):
    room = RoomGraph(version, seed)
    verdicts = set()
    for event, state, verdict in room.grow(25):
        assert naive_auth.allowed(event, room.state_of(state)) is verdict, event.pdu
        verdicts.add(verdict)
    assert verdicts == {True, False}


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_c04_resolution_agrees_with_the_naive_one_in_any_order_in_each_version(seed):
    for version in ROOM_VERSIONS.values():
        same_resolution(version, seed)


def same_resolution(version, seed):
    room = RoomGraph(version, seed)
    for _ in room.grow(30):
        pass
    ids = list(room.events)
    for _ in range(4):
        picked = room.random.sample(ids[3:], room.random.choice([2, 2, 3, 4]))
        states = [room.after[id_] for id_ in picked]
        resolved = resolve(version, states, room.fetch)
        assert resolved == naive_resolution.resolve(version, states, room.fetch)
        assert resolved == resolve(version, states[::-1], room.fetch)
        assert resolved == resolve(version, [dict(reversed(state.items())) for state in states], room.fetch)
        assert resolve(version, [resolved, resolved], room.fetch) == resolved
        unconflicted, conflicted = separate(states, version)
        over = resolve_conflicts(version, unconflicted, conflicted, room.fetch)
        assert {**unconflicted, **over} == resolved
