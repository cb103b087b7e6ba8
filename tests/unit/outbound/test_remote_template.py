"""D05: of a template from a resident server nothing gets our signature but what we wanted to say."""

from typing import Any

import pytest

from federation.rules.errors import MatrixError
from federation.rules.room_versions import ROOM_VERSIONS
from homeserver.rooms.remote_template import BadTemplate, event_from, vouching_server, with_signatures_of
from tests.fakes.world import World

USER = "@a:x"
ROOM = "!room:peer"
EVENT = "$" + "A" * 43


def template(**changes: Any) -> dict[str, Any]:
    whole = {
        "type": "m.room.member",
        "room_id": ROOM,
        "sender": USER,
        "state_key": USER,
        "content": {"membership": "join"},
        "depth": 7,
        "prev_events": [EVENT],
        "auth_events": [EVENT],
        "origin_server_ts": 1,
    }
    return {**whole, **changes}


def made(told: dict[str, Any], version: str = "10", **content: Any) -> Any:
    rooms = World().rooms
    return event_from(rooms, told, ROOM_VERSIONS[version], ROOM, USER, {"membership": "join", **content})


def test_d05_the_event_says_what_we_wanted_and_nothing_else() -> None:
    told = template(
        content={"membership": "join", "displayname": "Mallory", "is_direct": True},
        unsigned={"age": 1},
        redacts=EVENT,
        extra="x",
        signatures={"peer": {"ed25519:a": "x"}},
    )
    event = made(told, displayname="Alice")
    assert event.content == {"membership": "join", "displayname": "Alice"}
    assert set(event.pdu) == {
        "auth_events",
        "content",
        "depth",
        "hashes",
        "origin_server_ts",
        "prev_events",
        "room_id",
        "sender",
        "signatures",
        "state_key",
        "type",
    }
    assert set(event.pdu["signatures"]) == {"x"}
    assert event.origin_server_ts > 1_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "m.room.power_levels"},
        {"sender": "@b:x"},
        {"state_key": "@b:x"},
        {"state_key": None},
        {"room_id": "!other:peer"},
        {"content": {"membership": "leave"}},
        {"content": []},
        {"depth": "7"},
        {"depth": -1},
        {"depth": True},
        {"depth": 2**70},
        {"prev_events": []},
        {"prev_events": [EVENT] * 21},
        {"prev_events": [["a", {}]]},
        {"prev_events": {"a": 1}},
        {"auth_events": [EVENT] * 11},
        {"auth_events": ["not an id"]},
        {"content": {"membership": "join", "join_authorised_via_users_server": "nobody"}},
    ],
)
def test_d05_a_template_of_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadTemplate):
        made(template(**changes))


def test_d05_the_voucher_is_taken_over_where_the_version_knows_one() -> None:
    told = template(content={"membership": "join", "join_authorised_via_users_server": "@c:peer"})
    assert vouching_server(made(told)) == "peer"
    assert vouching_server(made(told, "7")) is None
    assert vouching_server(made(template(), join_authorised_via_users_server="@a:x")) is None


def test_references_of_the_first_room_versions_carry_hashes() -> None:
    told = template(prev_events=[["$a:peer", {"sha256": "abc", "x": 1}]], auth_events=[["$b:peer", {"sha256": "d"}]])
    event = made(told, "1")
    assert event.pdu["prev_events"] == [["$a:peer", {"sha256": "abc"}]]
    with pytest.raises(BadTemplate):
        made(template(), "1")


def test_of_an_answer_only_the_expected_signature_is_taken() -> None:
    event = made(template())
    answered = {**event.pdu, "content": {"membership": "ban"}, "signatures": {"peer": {"ed25519:a": "s"}, "evil": {"k": "s"}}}
    signed = with_signatures_of(event, answered, "peer")
    assert signed.content == {"membership": "join"}
    assert set(signed.pdu["signatures"]) == {"x", "peer"}
    assert signed.event_id == event.event_id
    for wrong in (None, {}, {"signatures": []}, {"signatures": {"peer": {}}}):
        with pytest.raises(MatrixError):
            with_signatures_of(event, wrong, "peer")
