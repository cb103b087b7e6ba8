"""POST /createRoom: presets, order of events, refusals, all or nothing."""

from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.task import deferLater

from federation.rules.errors import MatrixError
from homeserver.client.create_room import PATIENCE
from homeserver.rooms.append import append_event
from homeserver.rooms.at_once import AT_ONCE
from homeserver.rooms.room import Draft, Room
from storage.log.catalog import LOG
from tests.fakes.room_server import RoomServer

ALICE, BOB = "@alice:x", "@bob:x"


@pytest.mark.parametrize(
    "preset, rule, guests, bobs_level",
    [
        ("private_chat", "invite", "can_join", 0),
        ("trusted_private_chat", "invite", "can_join", 100),
        ("public_chat", "public", "forbidden", 0),
    ],
)
def test_presets(server: RoomServer, preset: str, rule: str, guests: str, bobs_level: int) -> None:
    room = server.create("alice", preset=preset, invite=[BOB])
    assert server.contents("alice", room, "m.room.join_rules") == {"join_rule": rule}
    assert server.contents("alice", room, "m.room.guest_access") == {"guest_access": guests}
    assert server.contents("alice", room, "m.room.history_visibility") == {"history_visibility": "shared"}
    levels = server.contents("alice", room, "m.room.power_levels")
    assert levels["users"].get(BOB, 0) == bobs_level
    assert levels["users"][ALICE] == 100


def test_preset_follows_visibility(server: RoomServer) -> None:
    assert server.contents("alice", server.create("alice"), "m.room.join_rules") == {"join_rule": "invite"}
    room = server.create("alice", visibility="public")
    assert server.contents("alice", room, "m.room.join_rules") == {"join_rule": "public"}
    assert [entry["room_id"] for entry in server.get(None, "/publicRooms")[1]["chunk"]] == [room]


def test_order_of_events(server: RoomServer) -> None:
    room = server.create(
        "alice",
        name="N",
        topic="T",
        room_alias_name="here",
        invite=[BOB],
        initial_state=[{"type": "org.example", "content": {"a": 1}}],
    )
    assert [type_ for _, type_, _ in server.log_of(room)] == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "org.example",
        "m.room.name",
        "m.room.topic",
        "m.room.member",
    ]
    invite = server.contents("alice", room, "m.room.member", BOB)
    assert invite == {"membership": "invite", "displayname": "bob"}


def test_initial_state_wins_over_the_preset(server: RoomServer) -> None:
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = server.create("alice", preset="public_chat", initial_state=[rules])
    assert server.contents("alice", room, "m.room.join_rules") == {"join_rule": "knock"}


def test_null_counts_as_absent(server: RoomServer) -> None:
    room = server.create("alice", name=None, invite=None, initial_state=None, preset=None, creation_content=None)
    assert server.get("alice", f"/rooms/{room}/state/m.room.name")[0] == 404


def test_creation_content_does_not_choose_version_or_creator(server: RoomServer) -> None:
    content = {"room_version": "bogus", "creator": "@eve:x", "m.federate": False, "test": "azerty"}
    room = server.create("alice", creation_content=content)
    assert server.contents("alice", room, "m.room.create") == {
        "room_version": "10",
        "creator": ALICE,
        "m.federate": False,
        "test": "azerty",
    }


@pytest.mark.parametrize(
    "wish, errcode",
    [
        ({"room_version": 1}, "M_BAD_JSON"),
        ({"room_version": "agjk"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"preset": "nope"}, "M_INVALID_PARAM"),
        ({"visibility": "nope"}, "M_INVALID_PARAM"),
        ({"invite": ["bob"]}, "M_INVALID_PARAM"),
        ({"invite": "bob"}, "M_BAD_JSON"),
        ({"invite": [f"@u{n}:x" for n in range(101)]}, "M_INVALID_PARAM"),
        ({"room_alias_name": "a:b"}, "M_INVALID_PARAM"),
        ({"room_alias_name": ""}, "M_INVALID_PARAM"),
        ({"room_alias_name": "é" * 130}, "M_INVALID_PARAM"),
        ({"name": 5}, "M_BAD_JSON"),
        ({"is_direct": "yes"}, "M_BAD_JSON"),
        ({"power_level_content_override": {"ban": True}}, "M_BAD_JSON"),
        ({"power_level_content_override": {"users": {"alice": 1}}}, "M_BAD_JSON"),
        ({"power_level_content_override": {"users": {}}}, "M_INVALID_ROOM_STATE"),
        ({"initial_state": [{"content": {}}]}, "M_BAD_JSON"),
        ({"initial_state": [{"type": "m.room.join_rules", "content": {"join_rule": 1}}]}, "M_BAD_JSON"),
        ({"creation_content": {"x": 1.5}}, "M_BAD_JSON"),
    ],
)
def test_refusals_leave_nothing(server: RoomServer, wish: dict[str, object], errcode: str) -> None:
    status, body = server.post("alice", "/createRoom", wish)
    assert (status, body["errcode"]) == (400, errcode)
    assert server.get("alice", "/joined_rooms") == (200, {"joined_rooms": []})
    server.run(server.rooms.settled())
    assert server.store.tables[LOG.number].keys == []
    assert server.feed.room_events == {}


def test_invitations_by_email_are_refused(server: RoomServer) -> None:
    threepid = {"id_server": "i", "id_access_token": "t", "medium": "email", "address": "a@b"}
    status, body = server.post("alice", "/createRoom", {"invite_3pid": [threepid]})
    assert (status, body["errcode"]) == (403, "M_THREEPID_DENIED")


def test_guests_make_no_rooms(server: RoomServer) -> None:
    assert server.post("guest1", "/createRoom", {})[1]["errcode"] == "M_GUEST_ACCESS_FORBIDDEN"


def test_b09_of_two_that_want_one_alias_one_gets_it(server: RoomServer) -> None:
    """Both are decided before either is durable."""
    first = server.pending_post("alice", "/createRoom", {"room_alias_name": "here"})
    second = server.pending_post("bob", "/createRoom", {"room_alias_name": "here"})
    first.settle(), second.settle()
    assert first.result is not None and first.result[0] == 200
    assert second.result is not None and second.result[1]["errcode"] == "M_ROOM_IN_USE"
    assert server.get(None, "/directory/room/%23here:x")[1]["room_id"] == first.result[1]["room_id"]


def test_creation_is_all_or_nothing(server: RoomServer) -> None:
    """After a crash at any point there is a whole room or none."""
    pending = server.pending_post("alice", "/createRoom", {"name": "N", "invite": [BOB]}, settled=False)
    assert pending.result is None
    before = server.restart()
    assert before.get("alice", "/joined_rooms")[1] == {"joined_rooms": []}
    pending.settle()
    assert pending.result is not None
    after = server.restart()
    room = pending.result[1]["room_id"]
    assert after.get("alice", "/joined_rooms")[1] == {"joined_rooms": [room]}
    assert after.contents("alice", room, "m.room.name") == {"name": "N"}
    assert server.log.groups == 1


def test_c07_version_12() -> None:
    """The room is called after its create event, creators stand above all numbers and are not among them."""
    server = RoomServer(version="12")
    room = server.create("alice", preset="trusted_private_chat", invite=[BOB])
    event = server.ok("alice", "GET", f"/rooms/{room}/state/m.room.create", format="event")
    assert room == "!" + event["event_id"][1:]
    assert event["content"] == {"room_version": "12", "additional_creators": [BOB]}
    levels = server.contents("alice", room, "m.room.power_levels")
    assert levels["users"] == {} and levels["events"]["m.room.tombstone"] == 150
    for body in ({"users": {ALICE: 100}}, {"users": {BOB: 100}}):
        status, answer = server.put("alice", f"/rooms/{room}/state/m.room.power_levels", body)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    record = server.rooms.event(event["event_id"])
    assert record is not None and "room_id" not in record.pdu


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
def test_every_room_version_works(version: str) -> None:
    server = RoomServer(version=version)
    room = server.create("alice", invite=[BOB])
    server.join("bob", room)
    event = server.say("bob", room)
    server.redact("alice", room, event)
    assert server.ok("bob", "GET", f"/rooms/{room}/event/{quote(event, safe='')}")["content"] == {}


class Elsewhere:
    """Other servers: those of ``silent`` never answer an invite, the others do after a second."""

    def __init__(self, server: RoomServer, *silent: str) -> None:
        self.server = server
        self.silent = silent
        self.asked: list[str] = []
        self.under_way = self.most = 0

    def takes_part(self, room_id: str) -> bool:
        return True

    async def invite(self, room: Room, sender: str, target: str, content: dict[str, Any]) -> str:
        self.asked.append(target)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        wait = 1e9 if target.endswith(self.silent or ("-",)) else 1.0
        await deferLater(self.server.clock, wait)
        self.under_way -= 1
        if target.startswith("@no"):
            raise MatrixError(502, "M_UNKNOWN", "gone")
        draft = Draft(sender, "m.room.member", content, state_key=target)
        return (await append_event(self.server.rooms, self.server.rooms.get(room.room_id), draft)).event_id


def test_servers_are_invited_from_together_but_not_all_at_once(server: RoomServer) -> None:
    elsewhere = server.membership.remote = Elsewhere(server)  # type: ignore[assignment]
    invited = [f"@u{n}:s{n}" for n in range(20)] + ["@no:s"]
    pending = server.pending_post("alice", "/createRoom", {"invite": invited})
    results = [pending.settle(second) for second in (0, 1, 1, 1)]
    assert results[:3] == [None] * 3 and results[3] is not None and results[3][0] == 200
    assert (elsewhere.most, sorted(elsewhere.asked)) == (AT_ONCE, sorted(invited))
    room = server.rooms.get(results[3][1]["room_id"])
    assert {room.membership(user_id) for user_id in invited[:20]} == {"invite"} and room.membership("@no:s") is None


def test_silent_servers_hold_up_neither_the_answer_nor_the_others(server: RoomServer) -> None:
    elsewhere = server.membership.remote = Elsewhere(server, ":silent")  # type: ignore[assignment]
    invited = [*(f"@u{n}:silent" for n in range(4)), *(f"@u{n}:fine" for n in range(8))]
    pending = server.pending_post("alice", "/createRoom", {"invite": invited})
    for _ in range(4):
        assert pending.settle(1) is None
    assert sorted(elsewhere.asked) == sorted(invited)
    result = pending.settle(PATIENCE)
    assert result is not None and result[0] == 200
    assert server.rooms.get(result[1]["room_id"]).membership("@u7:fine") == "invite"
