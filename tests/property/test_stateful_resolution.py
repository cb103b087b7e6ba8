"""Case J02: a room that grows step by step, in every version, always resolves as the naive implementation says, in any order.

Unlike the graphs of C04, whose growth is one number, a failing story here is made as short as it can be.
"""

import sys
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent))
import naive_resolution
from room_graphs import RoomGraph

from federation.rules.auth import AuthError, check_auth
from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.state_resolution import resolve


class GrowingRoom(RuleBasedStateMachine):
    """Somebody does something anywhere in the graph; servers that have heard of different parts of it meet."""

    @initialize(version=st.sampled_from(sorted(ROOM_VERSIONS)), chance=st.randoms(use_true_random=False))
    def begin(self, version, chance):
        self.room = RoomGraph(ROOM_VERSIONS[version], 0)
        self.room.random = chance

    @rule()
    def something_happens(self):
        event, state = self.room.propose()
        try:
            check_auth(event, self.room.state_of(state))
        except AuthError:
            return
        self.room.add(event, state)

    @rule(data=st.data())
    def servers_meet(self, data):
        room = self.room
        picked = data.draw(st.lists(st.sampled_from(list(room.events)), min_size=2, max_size=4, unique=True))
        states = [room.after[event_id] for event_id in picked]
        resolved = resolve(room.version, states, room.fetch)
        assert resolved == naive_resolution.resolve(room.version, states, room.fetch)
        assert resolved == resolve(room.version, data.draw(st.permutations(states)), room.fetch)
        assert resolved == resolve(room.version, [*states, states[0]], room.fetch)
        assert resolved == resolve(room.version, [resolved, resolved], room.fetch)

    @rule()
    def everybody_meets(self):
        room = self.room
        states = [room.after[event_id] for event_id in room.heads[-4:]]
        assert resolve(room.version, states, room.fetch) == naive_resolution.resolve(room.version, states, room.fetch)


def test_j02_a_growing_room_resolves_as_the_naive_implementation_says():
    run_state_machine_as_test(GrowingRoom, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))
