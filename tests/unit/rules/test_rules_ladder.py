"""Case C11: a deep, ladder-shaped auth graph is resolved with a bounded number of look-ups and no recursion."""

import pytest

from federation.rules.auth import auth_types_for
from federation.rules.event import build_event
from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.signing import SigningKey
from federation.rules.state_resolution import resolve

KEY = SigningKey.from_seed(b"k" * 32)
RUNGS = 1500


@pytest.mark.parametrize("version", [ROOM_VERSIONS["10"], ROOM_VERSIONS["12"]], ids=["v2", "v2.1"])
def test_c11_a_ladder_of_auth_events_takes_bounded_look_ups(version):
    events, fetched = {}, 0

    def add(type_, state_key, content, state):
        create = events.get(state.get(("m.room.create", "")))
        wanted = auth_types_for(type_, state_key, "@alice:a", content, version)
        event = build_event(
            version,
            room_id=create.room_id if create else None if version.room_id_is_create_hash else "!r:a",
            sender="@alice:a",
            type=type_,
            state_key=state_key,
            content=content,
            depth=len(events),
            prev_event_ids=list(events)[-1:],
            auth_event_ids=[state[key] for key in wanted if key in state],
            origin_server_ts=len(events),
            server_name="a",
            signing_key=KEY,
        )
        events[event.event_id] = event
        return {**state, event.key: event.event_id}

    state = add("m.room.create", "", {"creator": "@alice:a", "room_version": version.id}, {})
    state = add("m.room.member", "@alice:a", {"membership": "join"}, state)
    users = {} if version.privileged_creators else {"@alice:a": 100}
    long, short = state, add("m.room.power_levels", "", {"users": users, "ban": 7}, state)
    for rung in range(RUNGS):
        # Levels and membership take turns, and each cites the last of both.
        long = add("m.room.power_levels", "", {"users": users, "ban": rung % 50}, long)
        long = add("m.room.member", "@alice:a", {"membership": "join", "displayname": str(rung)}, long)

    def fetch(event_id):
        nonlocal fetched
        fetched += 1
        return events.get(event_id)

    resolved = resolve(version, [long, short], fetch)
    assert resolved["m.room.power_levels", ""] in (long["m.room.power_levels", ""], short["m.room.power_levels", ""])
    assert resolved["m.room.member", "@alice:a"] == long["m.room.member", "@alice:a"]
    assert fetched < 30 * len(events)
