"""POST /upgrade: what the new room has, what the old one keeps, what users find again."""

import json
from typing import Any

import pytest

from storage.log.account_data import datum
from tests.fakes.room_server import RoomServer

ALICE, BOB = "@alice:x", "@bob:x"


def upgrade(server: RoomServer, who: str, room: str, version: str = "10", **body: Any) -> str:
    new: str = server.ok(who, "POST", f"/rooms/{room}/upgrade", {"new_version": version, **body})["replacement_room"]
    return new


@pytest.mark.parametrize("version", ["1", "9", "11"])
def test_the_new_room_names_the_tombstone(server: RoomServer, version: str) -> None:
    room = server.create("alice")
    new = upgrade(server, "alice", room, version)
    create = server.contents("alice", new, "m.room.create")
    tombstone = server.ok("alice", "GET", f"/rooms/{room}/state/m.room.tombstone", format="event")
    assert tombstone["content"]["replacement_room"] == new
    assert create["predecessor"] == {"room_id": room, "event_id": tombstone["event_id"]}
    assert create["room_version"] == version


def test_to_version_12_the_upgrader_becomes_creator(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    levels = server.contents("alice", room, "m.room.power_levels")
    levels["users"].update({BOB: 90, "@carol:x": 50})
    server.state("alice", room, "m.room.power_levels", levels)
    new = upgrade(server, "alice", room, "12", additional_creators=[BOB])
    create = server.contents("alice", new, "m.room.create")
    assert create == {"room_version": "12", "predecessor": {"room_id": room}, "additional_creators": [BOB]}
    after = server.contents("alice", new, "m.room.power_levels")
    assert after["users"] == {"@carol:x": 50} and after["events"]["m.room.tombstone"] == 150


def test_from_version_12_creators_become_admins() -> None:
    server = RoomServer(version="12")
    room = server.create("alice", preset="trusted_private_chat", invite=[BOB])
    new = upgrade(server, "alice", room, "11")
    assert server.contents("alice", new, "m.room.power_levels")["users"] == {ALICE: 100, BOB: 100}


def test_state_bans_and_federation_are_carried_over(server: RoomServer) -> None:
    carried = {
        "m.room.name": {"name": "N"},
        "m.room.topic": {"topic": "T"},
        "m.room.avatar": {"url": "mxc://x/a"},
        "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2"},
        "m.room.server_acl": {"allow": ["*"]},
        "m.room.join_rules": {"join_rule": "public"},
        "m.room.guest_access": {"guest_access": "forbidden"},
        "m.room.history_visibility": {"history_visibility": "joined"},
    }
    initial = [{"type": type_, "content": content} for type_, content in carried.items()]
    left = [{"type": "m.room.pinned_events", "content": {"pinned": ["$x"]}}, {"type": "org.own", "content": {"a": 1}}]
    room = server.create("alice", initial_state=initial + left, creation_content={"m.federate": False, "type": "t"})
    server.join("bob", room)
    server.ok("alice", "POST", f"/rooms/{room}/ban", {"user_id": "@eve:x", "reason": "evil"})
    new = upgrade(server, "alice", room)
    for type_, content in carried.items():
        assert server.contents("alice", new, type_) == content
    for item in left:
        assert server.get("alice", f"/rooms/{new}/state/{item['type']}")[0] == 404
    assert server.contents("alice", new, "m.room.member", "@eve:x") == {"membership": "ban", "reason": "evil"}
    create = server.contents("alice", new, "m.room.create")
    assert create["m.federate"] is False and create["type"] == "t"
    assert server.get("alice", f"/rooms/{new}/state/m.room.member/{BOB}")[0] == 404


def test_power_above_100_is_kept(server: RoomServer) -> None:
    room = server.create("alice", power_level_content_override={"users": {ALICE: 500}})
    new = upgrade(server, "alice", room)
    assert server.contents("alice", new, "m.room.power_levels")["users"] == {ALICE: 500}


def test_a_moderator_upgrades_and_stays_a_moderator(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    levels = server.contents("alice", room, "m.room.power_levels")
    levels["users"][BOB] = 50
    server.ok("alice", "PUT", f"/rooms/{room}/state/m.room.power_levels", levels)
    status, answer = server.post("bob", f"/rooms/{room}/upgrade", {"new_version": "10"})
    assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    levels["events"]["m.room.tombstone"] = 50
    server.ok("alice", "PUT", f"/rooms/{room}/state/m.room.power_levels", levels)
    new = upgrade(server, "bob", room)
    assert server.contents("bob", new, "m.room.power_levels") == levels
    assert server.contents("bob", room, "m.room.power_levels") == levels


@pytest.mark.parametrize("default, level", [(0, 50), (80, 81)])
def test_the_old_room_falls_silent(server: RoomServer, default: int, level: int) -> None:
    room = server.create("alice", power_level_content_override={"users_default": default})
    upgrade(server, "alice", room)
    levels = server.contents("alice", room, "m.room.power_levels")
    assert (levels["events_default"], levels["invite"]) == (level, level)


def test_aliases_and_listing_move(server: RoomServer) -> None:
    room = server.create("alice", visibility="public", room_alias_name="here")
    server.ok("alice", "PUT", "/directory/room/%23also:x", {"room_id": room})
    canonical = {"alias": "#here:x", "alt_aliases": ["#also:x"]}
    server.state("alice", room, "m.room.canonical_alias", canonical)
    new = upgrade(server, "alice", room)
    assert server.contents("alice", new, "m.room.canonical_alias") == canonical
    assert server.contents("alice", room, "m.room.canonical_alias") == {}
    for alias in ("here", "also"):
        assert server.get(None, f"/directory/room/%23{alias}:x")[1]["room_id"] == new
    assert [entry["room_id"] for entry in server.get(None, "/publicRooms")[1]["chunk"]] == [new]


@pytest.mark.parametrize(
    "room, body, expected",
    [
        ("!nowhere:x", {"new_version": "10"}, (404, "M_NOT_FOUND")),
        (None, {"new_version": "bogus"}, (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (None, {"new_version": 10}, (400, "M_BAD_JSON")),
        (None, {}, (400, "M_BAD_JSON")),
        (None, {"new_version": "12", "additional_creators": ["bob"]}, (400, "M_INVALID_PARAM")),
    ],
)
def test_upgrades_refused_leave_the_room_alone(
    server: RoomServer, room: str | None, body: Any, expected: tuple[int, str]
) -> None:
    own = server.create("alice")
    before = server.log_of(own)
    status, answer = server.post("alice", f"/rooms/{room or own}/upgrade", body)
    assert (status, answer["errcode"]) == expected
    assert server.log_of(own) == before


def test_a_failed_upgrade_leaves_the_old_room_as_it_was(server: RoomServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tombstone is staged first; when the new room cannot be made it must not stand in the old one."""
    room = server.create("alice")

    def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("homeserver.rooms.upgrade.carry_over", broken)
    assert server.post("alice", f"/rooms/{room}/upgrade", {"new_version": "10"})[0] == 500
    assert server.get("alice", f"/rooms/{room}/state/m.room.tombstone")[0] == 404
    server.say("alice", room)
    assert server.rooms.get(room).state("m.room.tombstone") is None


def test_marks_of_the_old_room_are_found_in_the_new_one(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    for who in ("alice", "bob"):
        server.set_data(who, "m.tag", {"tags": {"m.favourite": {}}}, room)
        server.set_data(who, "m.direct", {"@x:x": [room]})
        rules = {"global": {"room": [{"rule_id": room, "actions": [], "enabled": True}]}}
        server.set_data(who, "m.push_rules", rules)
    new = upgrade(server, "alice", room)
    server.join("bob", new)
    for user in (ALICE, BOB):
        assert data(server, user, "m.tag", new) == {"tags": {"m.favourite": {}}}
        assert data(server, user, "m.direct") == {"@x:x": [room, new]}
        assert [rule["rule_id"] for rule in data(server, user, "m.push_rules")["global"]["room"]] == [new, room]


def data(server: RoomServer, user: str, type_: str, room: str = "") -> Any:
    found = datum(server.log, user, room, type_)
    return None if found is None else json.loads(found.content)
