"""Aliases, canonical aliases, the room directory, room summaries, who can be found."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.room_server import V1, RoomServer

HERE = "#here:x"


def errcode(answer: tuple[int, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["errcode"]


def path(alias: str = HERE) -> str:
    return f"/directory/room/{quote(alias)}"


def test_an_alias_from_birth_to_death(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    alias = "#☕:x"
    assert server.put("bob", path(alias), {"room_id": room}) == (200, {})
    assert server.get(None, path(alias)) == (200, {"room_id": room, "servers": ["x"]})
    assert server.ok("alice", "GET", f"/rooms/{room}/aliases") == {"aliases": [alias]}
    assert errcode(server.get("carol", f"/rooms/{room}/aliases")) == (403, "M_FORBIDDEN")
    assert server.restart().get(None, path(alias))[0] == 200
    assert server.call("bob", "DELETE", path(alias)) == (200, {})  # its creator, without any power
    assert errcode(server.get(None, path(alias))) == (404, "M_NOT_FOUND")
    assert errcode(server.call("bob", "DELETE", path(alias))) == (404, "M_NOT_FOUND")


def test_b09_an_alias_has_one_owner(server: RoomServer) -> None:
    room, other = server.create("alice", preset="public_chat"), server.create("bob")
    server.join("carol", room)
    full = "/_matrix/client/v3" + path()
    racers = [
        server.pending_put("alice", full, {"room_id": room}),
        server.pending_put("bob", full, {"room_id": other}),
    ]
    for racer in racers:
        racer.settle()
    assert [racer.result[0] for racer in racers if racer.result] == [200, 409]
    assert server.get(None, path())[1]["room_id"] == room
    assert errcode(server.call("carol", "DELETE", path())) == (403, "M_FORBIDDEN")
    assert errcode(server.call("bob", "DELETE", path())) == (403, "M_FORBIDDEN")
    assert errcode(server.put("dave", path("#new:x"), {"room_id": room})) == (403, "M_FORBIDDEN")
    assert server.call("admin", "DELETE", path()) == (200, {})


@pytest.mark.parametrize(
    "alias, body, expected",
    [
        ("here", {"room_id": "!a:x"}, (400, "M_INVALID_PARAM")),
        ("#here:other", {"room_id": "!a:x"}, (400, "M_INVALID_PARAM")),
        ("#" + "é" * 130 + ":x", {"room_id": "!a:x"}, (400, "M_INVALID_PARAM")),
        (HERE, {"room_id": "nothing"}, (400, "M_INVALID_PARAM")),
        (HERE, {"room_id": "!nowhere:x"}, (404, "M_NOT_FOUND")),
        (HERE, {}, (400, "M_BAD_JSON")),
    ],
)
def test_aliases_refused(server: RoomServer, alias: str, body: Any, expected: tuple[int, str]) -> None:
    assert errcode(server.put("alice", path(alias), body)) == expected


@pytest.mark.parametrize("alias", ["#here:other", "#nowhere:x"])
def test_unknown_aliases(server: RoomServer, alias: str) -> None:
    assert errcode(server.get(None, path(alias))) == (404, "M_NOT_FOUND")
    assert errcode(server.post("alice", f"/join/{quote(alias)}")) == (404, "M_NOT_FOUND")


def test_canonical_aliases_point_here(server: RoomServer) -> None:
    room = server.create("alice", room_alias_name="here")
    server.create("alice", room_alias_name="there")
    where = f"/rooms/{room}/state/m.room.canonical_alias"
    assert server.put("alice", where, {"alias": HERE, "alt_aliases": [HERE]})[0] == 200
    for content, expected in (
        ({"alias": "#nowhere:x"}, "M_BAD_ALIAS"),
        ({"alias": HERE, "alt_aliases": ["#there:x"]}, "M_BAD_ALIAS"),
        ({"alias": HERE, "alt_aliases": ["%here:x"]}, "M_INVALID_PARAM"),
        ({"alias": HERE, "alt_aliases": [{}]}, "M_INVALID_PARAM"),
        ({"alias": 5}, "M_INVALID_PARAM"),
    ):
        assert errcode(server.put("alice", where, content)) == (400, expected)
    assert server.put("alice", where, {})[0] == 200


def test_deleting_an_alias_takes_it_out_of_the_canonical_alias(server: RoomServer) -> None:
    room = server.create("alice", room_alias_name="here")
    assert server.contents("alice", room, "m.room.canonical_alias") == {"alias": HERE}
    assert server.call("alice", "DELETE", path()) == (200, {})
    assert server.contents("alice", room, "m.room.canonical_alias") == {}


def test_listing_rooms(server: RoomServer) -> None:
    topics = ("", "Tea", "Tea")
    rooms = [server.create("alice", preset="public_chat", name=f"Room {n}", topic=topics[n]) for n in range(3)]
    server.create("alice", name="private")
    listed = f"/directory/list/room/{rooms[0]}"
    assert server.get(None, listed) == (200, {"visibility": "private"})
    server.join("bob", rooms[0])
    assert errcode(server.put("bob", listed, {"visibility": "public"})) == (403, "M_FORBIDDEN")
    assert errcode(server.put("carol", listed, {"visibility": "public"})) == (403, "M_FORBIDDEN")
    assert errcode(server.put("alice", listed, {"visibility": "nope"})) == (400, "M_INVALID_PARAM")
    for room in rooms:
        assert server.put("alice", f"/directory/list/room/{room}", {}) == (200, {})
    page = server.get(None, "/publicRooms", limit=2)[1]
    assert page["total_room_count_estimate"] == 3 and "prev_batch" not in page
    assert page["chunk"][0] == {
        "room_id": rooms[0],
        "num_joined_members": 2,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        "name": "Room 0",
    }
    rest = server.get(None, "/publicRooms", limit=2, since=page["next_batch"])[1]
    assert {entry["room_id"] for entry in page["chunk"] + rest["chunk"]} == set(rooms) and "next_batch" not in rest
    found = server.post("bob", "/publicRooms", {"filter": {"generic_search_term": "tEA"}})[1]
    assert len(found["chunk"]) == 2
    assert errcode(server.get(None, "/publicRooms", since="x")) == (400, "M_INVALID_PARAM")
    assert errcode(server.post("bob", "/publicRooms", {"filter": 5})) == (400, "M_BAD_JSON")
    assert server.put("alice", listed, {"visibility": "private"}) == (200, {})
    assert server.get(None, "/publicRooms")[1]["total_room_count_estimate"] == 2


def test_room_types_are_filtered(server: RoomServer) -> None:
    space = server.create("alice", visibility="public", creation_content={"type": "m.space"})
    plain = server.create("alice", visibility="public")
    for types, expected in ((["m.space"], {space}), ([None], {plain}), ([None, "m.space"], {space, plain})):
        chunk = server.post("bob", "/publicRooms", {"filter": {"room_types": types}})[1]["chunk"]
        assert {entry["room_id"] for entry in chunk} == expected


def summary(server: RoomServer, who: str | None, room: str) -> tuple[int, Any]:
    return server.get(who, f"{V1}/room_summary/{quote(room)}")


def test_f05_room_summaries_are_for_those_who_may_know(server: RoomServer) -> None:
    """To everybody else a room that exists looks like one that does not."""
    open_room = server.create("alice", preset="public_chat", room_alias_name="here", name="N")
    private = server.create("alice", invite=["@bob:x"])
    world = server.create("alice", initial_state=[visibility("world_readable")])
    allow = [{"type": "m.room_membership", "room_id": open_room}]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    restricted = server.create("alice", initial_state=[rules])
    unknown = summary(server, None, "!nowhere:x")
    assert errcode(unknown) == (404, "M_NOT_FOUND")
    assert summary(server, None, private) == summary(server, "carol", private) == unknown
    assert summary(server, "carol", restricted) == unknown
    assert summary(server, "bob", private)[1]["membership"] == "invite"
    assert summary(server, None, world)[1]["world_readable"] is True
    told = summary(server, None, HERE)[1]
    assert told["name"] == "N" and told["room_version"] == "10" and "membership" not in told
    server.join("carol", open_room)
    assert summary(server, "carol", HERE)[1]["membership"] == "join"
    assert summary(server, "carol", restricted)[1] | {"allowed_room_ids": [open_room], "membership": "leave"} == (
        summary(server, "carol", restricted)[1]
    )


def test_mutual_rooms(server: RoomServer) -> None:
    rooms = sorted(server.create("alice", preset="public_chat") for _ in range(5))
    where = f"{V1}/mutual_rooms"
    for room in rooms[:3]:
        server.join("bob", room)
    server.join("carol", rooms[4])
    page = server.get("bob", where, user_id="@alice:x")[1]
    assert (page["joined"], page["count"]) == (rooms[:2], 3)
    rest = server.get("bob", where, **{"user_id": "@alice:x", "from": page["next_batch"]})[1]
    assert rest == {"joined": rooms[2:3], "count": 3}
    assert server.get("bob", where, user_id="@nobody:x")[1] == {"joined": [], "count": 0}
    assert errcode(server.get("bob", where)) == (400, "M_MISSING_PARAM")
    for wrong in ({"user_id": "bob"}, {"user_id": "@bob:x"}, {"user_id": "@alice:x", "from": "%"}):
        assert errcode(server.get("bob", where, **wrong)) == (400, "M_INVALID_PARAM")


def test_users_are_found_by_those_who_may_see_them(server: RoomServer) -> None:
    private = server.create("alice", invite=["@bob:x"])
    assert not server.findable.visible_to("bob", "@alice:x")
    server.join("bob", private)
    assert server.findable.visible_to("@bob:x", "@alice:x")
    assert not server.findable.visible_to("@carol:x", "@alice:x")
    server.create("alice", preset="public_chat")
    assert server.findable.visible_to("@carol:x", "@alice:x")
    server.create("dave", initial_state=[visibility("world_readable")])
    assert server.findable.visible_to("@carol:x", "@dave:x")


def visibility(value: str) -> dict[str, Any]:
    return {"type": "m.room.history_visibility", "content": {"history_visibility": value}}
