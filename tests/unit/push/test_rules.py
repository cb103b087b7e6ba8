"""Push rules: vectors of the specification, an independent oracle for patterns, and the cases of each condition."""

import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.push.default_rules import ME, default_rules
from homeserver.push.glob import Glob
from homeserver.push.rules import (
    FlatEvent,
    Person,
    compile_rules,
    compiled_default_rules,
    evaluate,
    property_path,
    unread_effect,
)

ALICE, BOB = "@alice:here", "@bob:here"


@cache
def vectors() -> dict[str, Any]:
    place = os.environ.get("FOLKMOOT_SPEC") or Path(__file__).parents[3].parent / "shared" / "spec"
    file = Path(place) / "vectors.json"
    if not file.exists():
        assert os.environ.get("CI") != "true", "the specification's data is missing"
        pytest.skip(f"no specification data at {file}")
    return json.loads(file.read_text())


def message(body: Any = "hi", sender: str = ALICE, **content: Any) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": body} | content
    return {"type": "m.room.message", "sender": sender, "room_id": "!r:here", "content": content}


def actions(
    event: dict[str, Any],
    ruleset: dict[str, Any] | None = None,
    *,
    user_id: str = BOB,
    members: int = 3,
    may_notify: bool = True,
    name: str | None = None,
) -> list[Any]:
    rules = compiled_default_rules() if ruleset is None else compile_rules(ruleset)
    flat = FlatEvent(event, lambda: members, lambda key: may_notify)
    return evaluate(rules, flat, Person(user_id, lambda: name)).actions


def rule(*conditions: Any, kind: str = "override", **fields: Any) -> dict[str, Any]:
    return {kind: [{"rule_id": "r", "conditions": list(conditions), "actions": ["hit"]} | fields]}


def test_the_default_rules_are_those_of_the_specification() -> None:
    wanted = vectors()["default_push_rules"]
    mine = default_rules(ME)
    assert mine["override"] == wanted["override"]
    assert mine["underride"] == wanted["underride"]
    assert mine["content"] == mine["room"] == mine["sender"] == []
    assert ME not in json.dumps(default_rules(ALICE)) and ALICE in json.dumps(default_rules(ALICE))


def test_vectors_of_conditions() -> None:
    cases = vectors()["glob_and_push_match"]
    tried = 0
    for group, kind, wanted in (
        ("event_match_cases", "event_match", "pattern"),
        ("event_property_is_cases", "event_property_is", "want"),
        ("event_property_contains_cases", "event_property_contains", "want"),
    ):
        for case in cases[group]:
            name = property_path(case["key"])[-1]
            event = {"type": "x", "sender": ALICE, "content": {name: case["value"]}}
            parameter = "pattern" if kind == "event_match" else "value"
            found = actions(event, rule({"kind": kind, "key": case["key"], parameter: case[wanted]}))
            assert (found == ["hit"]) is case["match"], case
            tried += 1
    assert tried >= 10


def test_vectors_of_property_paths() -> None:
    assert property_path("content.m\\.relates_to.rel_type") == ("content", "m.relates_to", "rel_type")
    assert property_path("a\\\\.b") == ("a\\", "b")
    assert property_path("a\\b") == ("a\\b",)
    assert property_path("a..b") == ("a", "", "b")
    for case in vectors()["property_paths"]["cases"]:
        assert property_path(case["path"]) == tuple(case["keys"])


def oracle(pattern: str, text: str) -> bool:
    """The textbook table: does the whole text match?"""
    row = [True, *([False] * len(text))]
    for char in pattern:
        if char == "*":
            for i in range(len(text)):
                row[i + 1] = row[i + 1] or row[i]
        else:
            row = [False, *(row[i] and char in ("?", text[i]) for i in range(len(text)))]
    return row[-1]


def is_boundary(text: str, place: int) -> bool:
    def is_word(i: int) -> bool:
        return 0 <= i < len(text) and text[i] in "abcdefghijklmnopqrstuvwxyz0123456789_"

    return not (is_word(place - 1) and is_word(place))


patterns = st.text("ab?* ", max_size=8)
texts = st.text("ab? é", max_size=12)


@settings(max_examples=600, deadline=None)
@given(patterns, texts)
def test_globs_agree_with_the_textbook(pattern: str, text: str) -> None:
    assert Glob(pattern).matches(text) is oracle(pattern, text)
    places = [place for place in range(len(text) + 1) if is_boundary(text, place)]
    words = any(oracle(pattern, text[a:b]) for a in places for b in places if a <= b)
    assert Glob(pattern).matches_words(text) is words


@settings(max_examples=100, deadline=None)
@given(st.text("ab?* ", min_size=1, max_size=5), texts)
def test_a_literal_means_its_stars(pattern: str, text: str) -> None:
    places = [place for place in range(len(text) + 1) if is_boundary(text, place)]
    assert Glob.literal(pattern).matches_words(text) is any(pattern == text[a:b] for a in places for b in places)


@pytest.mark.parametrize(
    "pattern", ["a?" * 500 + "b", "*a" * 500 + "b", "a*" * 4 + "?b", "?" * 999 + "c", "a" * 999 + "?"]
)
def test_h06_no_pattern_is_slow(pattern: str) -> None:
    """The longest pattern against the longest body; backtracking would take minutes, so a second is a wide margin."""
    text, start = "a" * 65_000, time.process_time()
    Glob(pattern).matches(text)
    Glob(pattern).matches_words(text)
    assert time.process_time() - start < 1


def test_messages_notify_others_and_not_their_sender() -> None:
    assert actions(message()) == ["notify"]
    assert actions(message(), user_id=ALICE) == []
    sound = {"set_tweak": "sound", "value": "default"}
    assert actions(message(), members=2) == ["notify", sound]
    assert actions({"type": "m.room.encrypted", "sender": ALICE, "content": {}}, members=2) == ["notify", sound]
    assert actions(message(msgtype="m.notice")) == []
    assert actions({"type": "m.reaction", "sender": ALICE, "content": {}}) == []


def test_mentions() -> None:
    highlight = {"set_tweak": "highlight"}
    mention = message(**{"m.mentions": {"user_ids": [BOB]}})
    assert actions(mention) == ["notify", {"set_tweak": "sound", "value": "default"}, highlight]
    assert actions(mention, user_id="@carol:here") == ["notify"]
    room = message(**{"m.mentions": {"room": True}})
    assert actions(room) == ["notify", highlight]
    assert actions(room, may_notify=False) == ["notify"]
    assert actions(message(**{"m.mentions": {"room": 1}})) == ["notify"]
    assert actions(message("bob: @room", **{"m.mentions": {}})) == ["notify"]
    edit = message(**{"m.relates_to": {"rel_type": "m.replace"}})
    assert actions(edit) == []


def test_invites_and_tombstones() -> None:
    invite = {"type": "m.room.member", "sender": ALICE, "state_key": BOB, "content": {"membership": "invite"}}
    assert "notify" in actions(invite)
    assert actions(invite, user_id="@carol:here") == []
    tombstone = {"type": "m.room.tombstone", "sender": ALICE, "state_key": "", "content": {}}
    assert actions(tombstone) == ["notify", {"set_tweak": "highlight"}]
    assert actions({"type": "m.room.tombstone", "sender": ALICE, "content": {}}) == []


def test_the_same_event_is_judged_for_each_user() -> None:
    flat = FlatEvent(message(**{"m.mentions": {"user_ids": [BOB]}}), lambda: 3, lambda key: True)
    outcomes = [
        evaluate(compiled_default_rules(), flat, Person(user_id, lambda: None)) for user_id in (BOB, "@c:here", BOB)
    ]
    assert [outcome.highlight for outcome in outcomes] == [True, False, True]


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "org.example.unknown"},
        {},
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "key": 5, "pattern": "*"},
        {"kind": "event_match", "key": "content.absent", "pattern": "*"},
        {"kind": "event_match", "key": "content.number", "pattern": "*"},
        {"kind": "event_property_is", "key": "content.number", "value": True},
        {"kind": "event_property_is", "key": "content", "value": {}},
        {"kind": "event_property_is", "key": "content.absent", "value": None},
        {"kind": "event_property_contains", "key": "content.body", "value": "h"},
        {"kind": "event_property_contains", "key": "content.list", "value": 1},
        {"kind": "room_member_count", "is": "=3"},
        {"kind": "room_member_count", "is": 3},
        {"kind": "room_member_count", "is": ">3"},
        {"kind": "room_member_count"},
        {"kind": "contains_display_name"},
    ],
)
def test_conditions_that_do_not_match(condition: dict[str, Any]) -> None:
    assert actions(message(number=1, list=[True, [1], "1"]), rule(condition)) == []


@pytest.mark.parametrize(
    ("text", "counts"), [("<3", {2}), (">2", {3}), ("<=2", {2}), (">=3", {3}), ("==2", {2}), ("3", {3})]
)
def test_member_counts(text: str, counts: set[int]) -> None:
    condition = {"kind": "room_member_count", "is": text}
    assert {n for n in (2, 3) if actions(message(), rule(condition), members=n)} == counts


def test_display_names_mean_themselves() -> None:
    ruleset = rule({"kind": "contains_display_name"})
    assert actions(message("hello Bob!"), ruleset, name="bob") == ["hit"]
    assert actions(message("hello bobby"), ruleset, name="bob") == []
    assert actions(message("hello anybody"), ruleset, name="*") == []
    assert actions(message("five * stars"), ruleset, name="*") == ["hit"]
    assert actions(message(5), ruleset, name="bob") == []


def test_kinds_are_checked_in_order_and_disabled_rules_never() -> None:
    ruleset: dict[str, Any] = {
        "underride": [{"rule_id": "u", "conditions": [], "actions": ["underride"]}],
        "sender": [{"rule_id": ALICE, "actions": ["sender"]}],
        "room": [{"rule_id": "!r:here", "actions": ["room"]}],
        "content": [{"rule_id": "c", "pattern": "h?", "actions": ["content"]}],
        "override": [{"rule_id": "o", "conditions": [], "actions": ["override"]}],
    }
    for kind in ("override", "content", "room", "sender", "underride"):
        assert actions(message(), ruleset) == [kind]
        ruleset[kind][0]["enabled"] = False
    assert actions(message(), ruleset) == []


def test_effects_of_actions() -> None:
    highlight = {"set_tweak": "highlight"}
    assert unread_effect(["notify"]) == (True, False)
    assert unread_effect(["notify", highlight]) == (True, True)
    assert unread_effect(["notify", highlight | {"value": False}]) == (True, False)
    assert unread_effect([highlight]) == unread_effect(["dont_notify"]) == unread_effect([{}, 5]) == (False, False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab.\\", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.\\", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text("ab.\\", max_size=3), json_values, max_size=3), json_values)
def test_any_property_is_found_under_its_escaped_path(content: dict[str, Any], wanted: Any) -> None:
    def walk(value: Any, path: str) -> list[tuple[str, Any]]:
        if type(value) is not dict:
            return [(path, value)]
        parts = ((name.replace("\\", "\\\\").replace(".", "\\."), inner) for name, inner in value.items())
        return [found for name, inner in parts for found in walk(inner, f"{path}.{name}")]

    event = {"type": "x", "sender": ALICE, "content": content}
    for path, value in walk(content, "content"):
        if type(value) not in (list, dict):
            assert actions(event, rule({"kind": "event_property_is", "key": path, "value": value})) == ["hit"]
        same = type(value) is type(wanted) and value == wanted and type(wanted) not in (list, dict)
        assert bool(actions(event, rule({"kind": "event_property_is", "key": path, "value": wanted}))) is same
