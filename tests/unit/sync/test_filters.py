"""Reading filters and applying them."""

import time

import pytest

from federation.rules.errors import MatrixError
from homeserver.sync.filters import EVERYTHING, glob_matches, parse_event_filter, parse_filter, pick_fields


def no_url() -> bool:
    return False


def test_an_empty_filter_lets_everything_pass() -> None:
    assert parse_filter({}) == EVERYTHING
    assert EVERYTHING.plain and EVERYTHING.timeline_limit == 10


@pytest.mark.parametrize(
    "bad",
    [
        [],
        {"presence": "no object"},
        {"room": []},
        {"room": {"timeline": {"limit": "3"}}},
        {"room": {"timeline": {"limit": True}}},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"timeline": {"rooms": "no list"}}},
        {"room": {"timeline": {"rooms": ["no room"]}}},
        {"room": {"timeline": {"senders": ["no_user"]}}},
        {"room": {"state": {"types": [1]}}},
        {"room": {"state": {"lazy_load_members": 1}}},
        {"room": {"include_leave": "yes"}},
        {"event_format": "xml"},
        {"event_fields": "content"},
        {"account_data": {"types": ["*" * 17]}},
    ],
)
def test_a09_wrong_types_are_refused(bad: object) -> None:
    with pytest.raises(MatrixError) as refusal:
        parse_filter(bad)
    assert refusal.value.status == 400


def test_null_counts_as_absent() -> None:
    assert parse_filter({"room": None, "presence": {"types": None}}) == EVERYTHING


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("m.room.*", "m.room.message", True),
        ("m.room.*", "m.room", False),
        ("*", "", True),
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "a--c--b", False),
        ("ab*ba", "aba", False),
        ("m.room.message", "m.room.message", True),
        ("*.key", "m.room.key", True),
        ("a.c", "abc", False),
    ],
)
def test_wildcards(pattern: str, text: str, matches: bool) -> None:
    assert glob_matches(pattern, text) is matches


def test_h06_many_stars_against_a_long_type_are_quick() -> None:
    began = time.process_time()
    assert not glob_matches("*a" * 16 + "b", "a" * 65_000)
    assert time.process_time() - began < 1


def test_types_senders_and_url() -> None:
    wanted = parse_event_filter(
        {"types": ["m.room.*"], "not_types": ["m.room.topic"], "not_senders": ["@b:x"], "contains_url": True}
    )
    assert wanted.wants("m.room.message", "@a:x", lambda: True)
    assert not wanted.wants("m.room.message", "@a:x", no_url)
    assert not wanted.wants("m.room.topic", "@a:x", lambda: True)
    assert not wanted.wants("m.room.message", "@b:x", lambda: True)
    assert not wanted.wants("m.sticker", "@a:x", lambda: True)


def test_an_empty_list_of_types_lets_nothing_pass() -> None:
    assert not parse_event_filter({"types": []}).wants("m.room.message", "@a:x", no_url)


def test_not_rooms_wins_over_rooms() -> None:
    wanted = parse_filter({"room": {"rooms": ["!a:x", "!b:x"], "not_rooms": ["!b:x"]}}).rooms
    assert wanted.wants_room("!a:x") and not wanted.wants_room("!b:x") and not wanted.wants_room("!c:x")


def test_fields_are_picked_by_dotted_paths() -> None:
    event = {"type": "t", "content": {"body": "b", "m.x": 1, "other": 2}, "sender": "s"}
    paths = parse_filter({"event_fields": ["content.body", "content.m\\.x", "missing.at", "type"]}).event_fields
    assert paths is not None
    assert pick_fields(event, paths) == {"type": "t", "content": {"body": "b", "m.x": 1}}
