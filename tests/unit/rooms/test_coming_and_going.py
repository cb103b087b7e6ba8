"""Join, invite, knock, leave, kick, ban, unban, forget through their endpoints."""

import pytest
from twisted.internet.defer import Deferred

from storage.log.append import Batch
from tests.fakes.room_server import RoomServer

ALICE, BOB, CAROL = "@alice:x", "@bob:x", "@carol:x"


def errcode(answer: tuple[int, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["errcode"]


def test_join_by_id_and_alias_with_content_of_ones_own(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat", room_alias_name="here")
    for who, path in (("bob", f"/join/{room}"), ("carol", "/join/%23here:x"), ("dave", f"/rooms/{room}/join")):
        body = {"foo": "bar", "membership": "ban", "kind": "guest", "displayname": "Eve", "reason": "why"}
        assert server.post(who, path, body) == (200, {"room_id": room})
        content = server.contents("alice", room, "m.room.member", f"@{who}:x")
        assert content == {"foo": "bar", "membership": "join", "displayname": who, "reason": "why"}


def test_joining_twice_changes_nothing(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    assert server.post("bob", f"/join/{room}")[0] == 200
    before = server.log_of(room)
    assert server.post("bob", f"/join/{room}", {"foo": "bar"})[0] == 200
    assert server.log_of(room) == before


@pytest.mark.parametrize(
    "path, expected",
    [
        ("/join/!nowhere:x", (404, "M_NOT_FOUND")),
        ("/join/%23nowhere:x", (404, "M_NOT_FOUND")),
        ("/join/nowhere", (400, "M_INVALID_PARAM")),
        ("/join/%23nowhere", (400, "M_INVALID_PARAM")),
        ("/rooms/nowhere/join", (400, "M_INVALID_PARAM")),
        ("/knock/!nowhere:x", (404, "M_NOT_FOUND")),
        ("/rooms/!nowhere:x/leave", (404, "M_NOT_FOUND")),
        ("/rooms/!nowhere:x/forget", (404, "M_NOT_FOUND")),
    ],
)
def test_rooms_that_are_none(server: RoomServer, path: str, expected: tuple[int, str]) -> None:
    assert errcode(server.post("alice", path)) == expected


def test_invite_only(server: RoomServer) -> None:
    room = server.create("alice")
    assert errcode(server.post("bob", f"/join/{room}")) == (403, "M_FORBIDDEN")
    assert server.post("alice", f"/rooms/{room}/invite", {"user_id": BOB, "reason": "come"}) == (200, {})
    content = server.contents("alice", room, "m.room.member", BOB)
    assert content == {"membership": "invite", "displayname": "bob", "reason": "come"}
    assert server.post("bob", f"/join/{room}")[0] == 200


@pytest.mark.parametrize(
    "body, expected",
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"user_id": "bob"}, (400, "M_INVALID_PARAM")),
        ({"user_id": 5}, (400, "M_BAD_JSON")),
        ({"user_id": ALICE}, (403, "M_FORBIDDEN")),
        ({"user_id": CAROL}, (403, "M_FORBIDDEN")),
        ({"id_server": "i", "medium": "email", "address": "a@b"}, (403, "M_THREEPID_DENIED")),
    ],
)
def test_invites_refused(server: RoomServer, body: object, expected: tuple[int, str]) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("carol", room)
    assert errcode(server.post("alice", f"/rooms/{room}/invite", body)) == expected


def test_ban_kick_unban(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room), server.join("carol", room)
    who = {"user_id": BOB}
    assert errcode(server.post("carol", f"/rooms/{room}/kick", who)) == (403, "M_FORBIDDEN")
    assert errcode(server.post("carol", f"/rooms/{room}/ban", who)) == (403, "M_FORBIDDEN")
    assert errcode(server.post("dave", f"/rooms/{room}/ban", who)) == (403, "M_FORBIDDEN")
    assert errcode(server.post("alice", f"/rooms/{room}/unban", who)) == (403, "M_FORBIDDEN")
    assert errcode(server.post("alice", f"/rooms/{room}/kick", {"user_id": "@dave:x"})) == (403, "M_FORBIDDEN")
    assert server.post("alice", f"/rooms/{room}/ban", {**who, "reason": "spam"}) == (200, {})
    assert server.contents("alice", room, "m.room.member", BOB) == {"membership": "ban", "reason": "spam"}
    assert errcode(server.post("bob", f"/join/{room}")) == (403, "M_FORBIDDEN")
    assert errcode(server.post("alice", f"/rooms/{room}/invite", who)) == (403, "M_FORBIDDEN")
    assert errcode(server.post("alice", f"/rooms/{room}/kick", who)) == (403, "M_FORBIDDEN")  # a kick lifts no ban
    assert errcode(server.post("bob", f"/rooms/{room}/leave")) == (403, "M_FORBIDDEN")
    assert server.post("alice", f"/rooms/{room}/unban", who) == (200, {})
    assert server.post("bob", f"/join/{room}")[0] == 200
    assert server.post("alice", f"/rooms/{room}/kick", who) == (200, {})
    assert errcode(server.post("alice", f"/rooms/{room}/kick", who)) == (403, "M_FORBIDDEN")


def test_nothing_of_a_kicked_user_stands_behind_the_kick(server: RoomServer) -> None:
    """Messages and the kick race: whatever is accepted is before it, also when nothing is durable yet."""
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    message = {"msgtype": "m.text", "body": "x"}
    calls = []
    for number in range(6):
        if number == 3:
            calls.append(server.pending_post("alice", f"/rooms/{room}/kick", {"user_id": BOB}))
        path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/t{number}"
        calls.append(server.pending_put("bob", path, message))
    for call in calls:
        call.settle()
    assert [call.result[0] for call in calls if call.result] == [200, 200, 200, 200, 403, 403, 403]
    log = server.log_of(room)
    kick = max(place for place, entry in enumerate(log) if entry == ("alice", "m.room.member", BOB))
    assert all(sender != "bob" for sender, _, _ in log[kick:])
    assert sum(entry == ("bob", "m.room.message", None) for entry in log) == 3


def test_leaving_and_forgetting(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    assert errcode(server.post("bob", f"/rooms/{room}/leave")) == (403, "M_FORBIDDEN")
    assert errcode(server.post("bob", f"/rooms/{room}/forget")) == (404, "M_NOT_FOUND")
    server.join("bob", room)
    assert errcode(server.post("bob", f"/rooms/{room}/forget")) == (400, "M_UNKNOWN")
    assert server.post("bob", f"/rooms/{room}/leave", {"reason": None}) == (200, {})
    assert server.post("bob", f"/rooms/{room}/leave") == (200, {})
    assert server.get("bob", f"/rooms/{room}/messages")[0] == 200
    assert server.post("bob", f"/rooms/{room}/forget") == (200, {})
    assert server.post("bob", f"/rooms/{room}/forget") == (200, {})
    assert server.get("bob", f"/rooms/{room}/messages")[0] == 403
    assert server.restart().get("bob", f"/rooms/{room}/messages")[0] == 403
    server.join("bob", room)
    assert server.get("bob", f"/rooms/{room}/messages")[0] == 200


def test_knocking(server: RoomServer) -> None:
    knock = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
    room = server.create("alice", initial_state=[knock])
    assert server.post("bob", f"/knock/{room}", {"reason": "please"}) == (200, {"room_id": room})
    assert server.post("bob", f"/knock/{room}") == (200, {"room_id": room})
    content = server.contents("alice", room, "m.room.member", BOB)
    assert content == {"membership": "knock", "displayname": "bob", "reason": "please"}
    assert errcode(server.post("bob", f"/join/{room}")) == (403, "M_FORBIDDEN")
    assert server.post("alice", f"/rooms/{room}/invite", {"user_id": BOB}) == (200, {})
    assert errcode(server.post("bob", f"/knock/{room}")) == (403, "M_FORBIDDEN")
    server.join("bob", room)
    assert server.post("carol", f"/knock/{room}")[0] == 200
    assert server.post("carol", f"/rooms/{room}/leave") == (200, {})  # taking it back
    assert errcode(server.post("carol", f"/knock/{server.create('alice')}")) == (403, "M_FORBIDDEN")


def test_restricted_joins(server: RoomServer) -> None:
    lobby = server.create("alice", preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": lobby}, "nonsense", {"type": "m.room_membership", "room_id": 3}]
    rules = {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}}
    room = server.create("alice", initial_state=[rules])
    assert errcode(server.post("bob", f"/join/{room}")) == (403, "M_FORBIDDEN")
    server.join("bob", lobby)
    assert server.post("bob", f"/join/{room}")[0] == 200
    assert server.contents("bob", room, "m.room.member", BOB)["join_authorised_via_users_server"] == ALICE
    levels = server.contents("alice", room, "m.room.power_levels")
    server.state("alice", room, "m.room.power_levels", {**levels, "invite": 100})
    server.join("carol", lobby)
    server.post("alice", f"/rooms/{room}/leave")
    assert errcode(server.post("carol", f"/join/{room}")) == (400, "M_UNABLE_TO_GRANT_JOIN")


def test_guests_come_in_where_they_are_let_in_and_leave_when_they_are_not(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    assert errcode(server.post("guest1", f"/join/{room}")) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    server.state("alice", room, "m.room.guest_access", {"guest_access": "can_join"})
    assert server.post("guest1", f"/join/{room}")[0] == 200
    server.join("bob", room)
    assert server.contents("alice", room, "m.room.member", "@guest1:x")["kind"] == "guest"
    server.state("alice", room, "m.room.guest_access", {"guest_access": "forbidden"})
    assert list(server.ok("alice", "GET", f"/rooms/{room}/joined_members")["joined"]) == [ALICE, BOB]
    assert server.log_of(room)[-1] == ("guest1", "m.room.member", "@guest1:x")


def test_who_was_a_guest_once_stays_where_guests_have_to_leave(server: RoomServer) -> None:
    guests = {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}}
    room = server.create("alice", preset="public_chat", initial_state=[guests])
    assert server.post("guest1", f"/join/{room}")[0] == 200
    server.run(server.membership.on_guest_upgrade("@guest1:x"))
    content = server.contents("alice", room, "m.room.member", "@guest1:x")
    assert content["membership"] == "join" and "kind" not in content
    server.state("alice", room, "m.room.guest_access", {"guest_access": "forbidden"})
    assert "@guest1:x" in server.ok("alice", "GET", f"/rooms/{room}/joined_members")["joined"]


def test_membership_set_as_state(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    path = f"/rooms/{room}/state/m.room.member/{BOB}"
    own = {"membership": "join", "displayname": "Overridden"}
    first = server.ok("bob", "PUT", path, own)
    assert server.ok("bob", "PUT", path, own) == first
    assert server.contents("alice", room, "m.room.member", BOB) == own
    assert errcode(server.put("bob", path, {"membership": "dances"})) == (400, "M_BAD_JSON")
    assert errcode(server.put("carol", path, {"membership": "leave"})) == (403, "M_FORBIDDEN")
    assert errcode(server.put("bob", f"/rooms/{room}/state/m.room.member/bob", own)) == (400, "M_INVALID_PARAM")
    kick = {"membership": "leave", "reason": "out"}
    assert server.put("alice", path, kick)[0] == 200
    assert server.contents("alice", room, "m.room.member", BOB) == kick


def test_profile_changes_reach_the_member_events(server: RoomServer) -> None:
    rooms = [server.create("alice") for _ in range(3)]
    server.run(server.membership.on_profile_change(ALICE, {"displayname": "Alice!", "avatar_url": "mxc://x/a"}))
    for room in rooms:
        content = server.contents("alice", room, "m.room.member", ALICE)
        assert content == {"membership": "join", "displayname": "Alice!", "avatar_url": "mxc://x/a"}


def test_i09_deactivated_users_leave_everywhere_even_after_a_crash(server: RoomServer) -> None:
    public = [server.create("alice", preset="public_chat") for _ in range(45)]
    for room in public[:44]:
        server.join("bob", room)
    server.invite("alice", public[44], "bob")
    payload = {"user_id": BOB, "erase": False}
    batch = server.log.begin()
    server.departures.stop()  # the process dies before anything is done about it
    server.departures.bring(batch, payload)
    server.run(server.log.append(batch))
    assert len(server.get("bob", "/joined_rooms")[1]["joined_rooms"]) == 44
    again = server.restart()
    append, appended = again.log.append, []

    def die_after_the_first_rooms(batch: Batch) -> "Deferred[int]":
        appended.append(batch)
        if len(appended) == 2:
            again.departures.stop()
        return append(batch)

    again.log.append = die_after_the_first_rooms  # type: ignore[method-assign]
    again.departures.wake()
    again.clock.advance(0)
    assert 0 < len(again.get("bob", "/joined_rooms")[1]["joined_rooms"]) < 44
    last = again.restart()
    batch = last.log.begin()
    last.departures.bring(batch, payload)  # the outbox may bring its row twice
    last.run(last.log.append(batch))
    for _ in range(40):
        last.clock.advance(0)
    assert last.get("bob", "/joined_rooms")[1] == {"joined_rooms": []}
    for room in public:
        assert last.log_of(room).count(("bob", "m.room.member", BOB)) == (1 if room == public[44] else 2)
    assert last.contents("alice", public[0], "m.room.member", ALICE)["membership"] == "join"
