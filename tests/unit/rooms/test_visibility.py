"""The specification's table of history visibility, row by row."""

import pytest

from homeserver.rooms.visibility import OUTSIDER, Sight, Standing, allows, known_visibility, may_see

ROWS = {
    # (visibility, membership at the event): (joined later, never joined later)
    ("world_readable", "join"): (True, True),
    ("world_readable", "invite"): (True, True),
    ("world_readable", "leave"): (True, True),
    ("world_readable", "ban"): (True, True),
    ("world_readable", "knock"): (True, True),
    ("shared", "join"): (True, True),
    ("shared", "invite"): (True, False),
    ("shared", "leave"): (True, False),
    ("shared", "ban"): (True, False),
    ("shared", "knock"): (True, False),
    ("invited", "join"): (True, True),
    ("invited", "invite"): (True, True),
    ("invited", "leave"): (False, False),
    ("invited", "ban"): (False, False),
    ("invited", "knock"): (False, False),
    ("joined", "join"): (True, True),
    ("joined", "invite"): (False, False),
    ("joined", "leave"): (False, False),
    ("joined", "ban"): (False, False),
    ("joined", "knock"): (False, False),
}


@pytest.mark.parametrize(("row", "answers"), ROWS.items())
def test_f01_the_table(row: tuple[str, str], answers: tuple[bool, bool]) -> None:
    assert (allows(Standing(*row), True), allows(Standing(*row), False)) == answers


@pytest.mark.parametrize("before", ROWS)
@pytest.mark.parametrize("after", ROWS)
def test_f01_either_side_of_a_change_is_enough(before: tuple[str, str], after: tuple[str, str]) -> None:
    for index, later in enumerate((True, False)):
        assert may_see(Standing(*before), Standing(*after), later) is (ROWS[before][index] or ROWS[after][index])


@pytest.mark.parametrize("value", [None, 1, "everyone", [], {}])
def test_unknown_visibility_is_shared(value: object) -> None:
    assert known_visibility(value) == "shared"


def sight(standings: dict[bytes, Standing], last_joined: float | None) -> Sight:
    return Sight("@me:x", standings.__getitem__, lambda: last_joined)


def test_only_own_membership_and_visibility_changes_have_two_sides() -> None:
    eyes = sight({b"out": Standing("joined", "leave"), b"in": Standing("joined", "join")}, None)
    assert eyes.sees(5, "m.room.member", "@me:x", b"out", b"in")
    assert not eyes.sees(5, "m.room.member", "@other:x", b"out", b"in")
    assert not eyes.sees(5, "m.room.message", None, b"out", b"in")
    assert eyes.sees(5, "m.room.history_visibility", "", b"out", b"in")
    assert not eyes.sees(5, "m.room.history_visibility", "odd", b"out", b"in")


def test_shared_history_needs_a_later_join() -> None:
    assert sight({b"r": OUTSIDER}, 6).sees(5, "m.room.message", None, b"r", b"r")
    assert not sight({b"r": OUTSIDER}, 5).sees(5, "m.room.message", None, b"r", b"r")
    assert not sight({b"r": OUTSIDER}, None).sees(5, "m.room.message", None, b"r", b"r")


def test_each_state_is_read_once() -> None:
    asked: list[bytes] = []

    def standing(root: bytes) -> Standing:
        asked.append(root)
        return Standing("shared", "join")

    eyes = Sight("@me:x", standing, lambda: None)
    assert all(eyes.sees(n, "m.room.message", None, b"r", b"r") for n in range(5))
    assert asked == [b"r"]


def test_membership_at_an_event_includes_its_own_change() -> None:
    eyes = sight({b"out": OUTSIDER, b"in": Standing("shared", "join")}, 1)
    assert eyes.membership_at("m.room.member", "@me:x", b"out", b"in") == "join"
    assert eyes.membership_at("m.room.member", "@other:x", b"out", b"in") == "leave"
