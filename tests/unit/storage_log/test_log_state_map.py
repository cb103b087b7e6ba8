"""The state map against a plain dictionary."""

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.log import state_map
from storage.log.state_map import NodeCache, StateMap

types = st.sampled_from(["m.room.member", "m.room.topic", "a", "b", *(f"t{n}" for n in range(40))])
keys = st.integers(0, 60).map(lambda n: f"@user{n}:example.org")
values = st.none() | st.integers(0, 5).map(lambda n: f"$event{n}")
changes = st.dictionaries(st.tuples(types | st.just("m.room.member"), keys), values, max_size=120)


@settings(max_examples=60, deadline=None)
@given(st.lists(changes, min_size=1, max_size=6))
def test_states_hold_what_was_set_whatever_the_way(steps: list[dict[tuple[str, str], str | None]]) -> None:
    store: dict[bytes, bytes] = {}
    cache = NodeCache(50)
    model: dict[tuple[str, str], str] = {}
    root = b""
    for step in steps:
        before_root, before = root, dict(model)
        out: dict[bytes, bytes] = {}
        root = state_map.set_many(store.__getitem__, root, step, out, cache)
        store.update(out)
        for key, value in step.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
        load = store.__getitem__
        assert {(t, k): e for t, k, e in state_map.items(load, root)} == model
        assert all(state_map.get(load, root, *key, cache) == model.get(key) for key in step)
        # The root depends on the contents alone.
        assert state_map.set_many({}.__getitem__, b"", dict(model), {}) == root
        found = {(t, k): (old, new) for t, k, old, new in state_map.diff(load, before_root, root)}
        differing = {key for key in before.keys() | model.keys() if before.get(key) != model.get(key)}
        assert found == {key: (before.get(key), model.get(key)) for key in differing}
        members = [key for type_, key in model if type_ == "m.room.member"]
        assert state_map.count(load, root, "m.room.member") == len(members)


def test_a_member_of_a_large_room_costs_few_small_nodes() -> None:
    store: dict[bytes, bytes] = {}
    everybody: dict[tuple[str, str], str | None] = {
        ("m.room.member", f"@user{n}:example.org"): "$" + f"{n:043d}" for n in range(100_000)
    }
    everybody |= {(f"m.room.type{n}", ""): "$" + "x" * 43 for n in range(12)}
    root = state_map.set_many(store.__getitem__, b"", everybody, store)
    out: dict[bytes, bytes] = {}
    reads: list[bytes] = []

    def load(node: bytes) -> bytes:
        reads.append(node)
        return store[node]

    after = state_map.set_many(load, root, {("m.room.member", "@new:example.org"): "$" + "n" * 43}, out)
    assert len(out) <= 5 and sum(map(len, out.values())) < 4000
    store.update(out)
    reads.clear()
    assert list(state_map.diff(load, root, after)) == [("m.room.member", "@new:example.org", None, "$" + "n" * 43)]
    assert len(reads) <= 10


def test_several_events_of_one_batch_build_on_each_other() -> None:
    states = StateMap(lambda table, key: None, 7)
    out: dict[bytes, bytes] = {}
    root = b""
    for number in range(50):
        root = states.set(root, {("m.room.member", f"@{number}:x"): f"${number}"}, out)
    assert states.get(root, "m.room.member", "@7:x") == "$7"
    assert len(dict(states.items(root, "m.room.member"))) == 50
    assert list(states.diff(b"", states.set(b"", {("a", ""): "$e"}, out))) == [(("a", ""), None, "$e")]
    assert states.set(root, {("m.room.member", f"@{n}:x"): None for n in range(50)}, out) == b""
