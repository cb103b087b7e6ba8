"""What readers get to see: every reading endpoint against a simple oracle, pagination, departed and peeking readers."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.rules.errors import MatrixError
from storage.log.events import room_slice
from tests.fakes.room_server import V1, RoomServer

VISIBILITIES = ("world_readable", "shared", "invited", "joined")
USERS = ("bob", "carol")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.just("alice")),
        st.tuples(st.just("see"), st.sampled_from(VISIBILITIES)),
        st.tuples(st.sampled_from(("join", "leave", "invite", "kick", "ban", "unban")), st.sampled_from(USERS)),
    ),
    min_size=3,
    max_size=16,
)


@dataclass
class Oracle:
    """The specification's table, worked out slowly from the whole list of events."""

    events: list[dict[str, Any]]
    sides: list[tuple[dict[Any, Any], dict[Any, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        state: dict[Any, Any] = {}
        for event in self.events:
            before = dict(state)
            if "state_key" in event:
                state[event["type"], event["state_key"]] = event["content"]
            self.sides.append((before, dict(state)))

    def standing(self, state: dict[Any, Any], user: str) -> tuple[str, str]:
        visibility = state.get(("m.room.history_visibility", ""), {}).get("history_visibility", "shared")
        return visibility, state.get(("m.room.member", user), {}).get("membership", "leave")

    def membership(self, user: str) -> str | None:
        """The present one; None for somebody who was never even invited."""
        content = self.sides[-1][1].get(("m.room.member", user))
        return None if content is None else content["membership"]

    def ever_joined(self, user: str) -> bool:
        return any(self.standing(after, user)[1] == "join" for _, after in self.sides)

    def world_readable(self) -> bool:
        return self.standing(self.sides[-1][1], "")[0] == "world_readable"

    def may_read(self, user: str) -> bool:
        membership = self.membership(user)
        left = membership in ("leave", "ban") and self.ever_joined(user)
        return membership == "join" or left or self.world_readable()

    def visible(self, user: str, index: int) -> bool:
        event, sides = self.events[index], self.sides[index]
        changes_sides = (event["type"], event.get("state_key")) in (
            ("m.room.history_visibility", ""),
            ("m.room.member", user),
        )
        return any(self.allowed(user, index, side) for side in (sides if changes_sides else sides[:1]))

    def allowed(self, user: str, index: int, state: dict[Any, Any]) -> bool:
        visibility, membership = self.standing(state, user)
        if visibility == "world_readable" or membership == "join":
            return True
        if visibility == "shared":
            return any(self.standing(after, user)[1] == "join" for _, after in self.sides[index + 1 :])
        return visibility == "invited" and membership == "invite"

    def departure(self, user: str) -> int:
        """Where the reader's history ends: behind the event by which they left, or nowhere."""
        if self.membership(user) == "join" or self.world_readable():
            return len(self.events)
        own = [place for place, event in enumerate(self.events) if event.get("state_key") == user]
        return max(place for place in own if self.events[place]["type"] == "m.room.member") + 1


def play(server: RoomServer, story: list[tuple[str, str]]) -> str:
    room = server.create("alice")
    acts: dict[str, Any] = {"join": server.join, "leave": server.leave}
    for number, (act, what) in enumerate(story):
        try:
            if act == "say":
                server.say("alice", room, f"message {number}")
            elif act == "see":
                server.state("alice", room, "m.room.history_visibility", {"history_visibility": what})
            elif act in acts:
                acts[act](what, room)
            elif act == "unban":
                server.run(server.membership.unban(server.who("alice"), room, f"@{what}:x", None))
            else:
                getattr(server, act)("alice", room, what)
        except MatrixError:
            continue
        server.clock.advance(0.001)
    return room


def oracle_of(server: RoomServer, room: str) -> tuple[Oracle, list[str]]:
    meta = server.rooms.get(room).meta
    with server.log.snapshot() as snapshot:
        records = list(room_slice(snapshot, meta.nid, 1, meta.last_seq + 1))
        return Oracle([json.loads(record.pdu) for record in records]), [record.event_id for record in records]


def pages(server: RoomServer, who: str, room: str, direction: str, limit: int) -> list[str]:
    """Ids of all events that /messages gives, page by page."""
    found: list[str] = []
    query = {"dir": direction, "limit": limit}
    for _ in range(100):
        page = server.ok(who, "GET", f"/rooms/{room}/messages", **query)
        assert len(page["chunk"]) <= limit
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            return found
        query["from"] = page["end"]
    raise AssertionError("the history has no end")


@given(steps)
@settings(max_examples=60, deadline=None)
def test_f01_every_reading_endpoint_agrees_with_the_table(story: list[tuple[str, str]]) -> None:
    server = RoomServer()
    room = play(server, story)
    oracle, ids = oracle_of(server, room)
    for name in ("alice", *USERS):
        user = f"@{name}:x"
        if not oracle.may_read(user):
            for path in ("messages", "state", "initialSync", f"context/{ids[-1]}", "members", "state/m.room.create"):
                assert server.get(name, f"/rooms/{room}/{path}")[0] == 403, path
            for event_id in ids:
                assert server.get(name, f"/rooms/{room}/event/{event_id}")[0] == 404
                assert server.get(name, f"/events/{event_id}")[0] == 404
            continue
        seen = [event_id for place, event_id in enumerate(ids) if oracle.visible(user, place)]
        until = oracle.departure(user)
        assert pages(server, name, room, "f", 3) == seen
        assert pages(server, name, room, "b", 4)[::-1] == [one for one in seen if ids.index(one) < until]
        shown = server.ok(name, "GET", f"/rooms/{room}/initialSync", limit=50)["messages"]["chunk"]
        assert [event["event_id"] for event in shown] == [one for one in seen if ids.index(one) < until]
        for event_id in ids:
            expected = 200 if event_id in seen else 404
            assert server.get(name, f"/rooms/{room}/event/{event_id}")[0] == expected
            assert server.get(name, f"/events/{event_id}")[0] == expected
            status, context = server.get(name, f"/rooms/{room}/context/{event_id}", limit=4)
            assert status == expected
            if status == 200:
                around = [event["event_id"] for event in context["events_before"] + context["events_after"]]
                assert set(around) <= set(seen) - {event_id}
        status, nearest = server.get(name, f"{V1}/rooms/{room}/timestamp_to_event", ts=0, dir="f")
        assert (status, nearest.get("event_id")) == ((200, seen[0]) if seen else (404, None))


def test_f06_pages_cross_long_runs_of_hidden_events(server: RoomServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.rooms.read.MAX_SCAN", 20)
    room = server.create("alice", preset="public_chat")
    server.state("alice", room, "m.room.history_visibility", {"history_visibility": "joined"})
    for number in range(110):
        server.say("alice", room, str(number))
    server.join("bob", room)
    last = server.say("alice", room, "seen")
    first = server.ok("alice", "GET", f"/rooms/{room}/state/m.room.create", format="event")["event_id"]
    back, forth = pages(server, "bob", room, "b", 5), pages(server, "bob", room, "f", 5)
    assert back == forth[::-1]
    assert last in back and first in back and len(back) < 20
    page = server.ok("bob", "GET", f"/rooms/{room}/messages", dir="b", limit=10)
    assert 0 < len(page["chunk"]) < 10 and "end" in page  # not the end yet, though the page is not full


def test_departed_readers_see_the_room_as_they_left_it(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat", name="old")
    server.join("bob", room)
    told = server.say("alice", room, "before")
    server.leave("bob", room)
    server.state("alice", room, "m.room.name", {"name": "new"})
    hidden = server.say("alice", room, "after")
    server.join("carol", room)
    assert server.contents("bob", room, "m.room.name") == {"name": "old"}
    state = {(event["type"], event["state_key"]): event for event in server.ok("bob", "GET", f"/rooms/{room}/state")}
    assert state["m.room.name", ""]["content"] == {"name": "old"}
    assert state["m.room.member", "@bob:x"]["content"]["membership"] == "leave"
    members = server.ok("bob", "GET", f"/rooms/{room}/members")["chunk"]
    assert {event["state_key"] for event in members} == {"@alice:x", "@bob:x"}
    events = pages(server, "bob", room, "b", 10)
    assert told in events and hidden not in events
    assert hidden not in pages(server, "bob", room, "f", 10)
    assert server.get("bob", f"/rooms/{room}/joined_members")[0] == 403
    info = server.ok("bob", "GET", f"/rooms/{room}/initialSync", limit=2)
    assert info["membership"] == "leave" and info["presence"] == [] and info["receipts"] == []
    rooms = server.ok("bob", "GET", "/initialSync", archived="true", limit=2)["rooms"]
    assert [entry["membership"] for entry in rooms] == ["leave"]
    assert server.ok("bob", "GET", "/initialSync")["rooms"] == []


def test_members_at_a_point_in_time(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    token = server.ok("alice", "GET", f"/rooms/{room}/messages", dir="b", limit=1)["start"]
    since = server.synced("alice")["next_batch"]
    server.join("bob", room), server.join("carol", room)
    server.leave("carol", room)

    def users(**query: str) -> set[str]:
        chunk = server.ok("alice", "GET", f"/rooms/{room}/members", **query)["chunk"]
        return {event["state_key"][1] for event in chunk}

    assert users() == {"a", "b", "c"}
    assert users(at=token) == users(at=since) == {"a"}
    assert users(membership="join") == {"a", "b"}
    assert users(not_membership="join") == {"c"}
    assert server.get("alice", f"/rooms/{room}/members", membership="dance")[0] == 400
    assert server.get("alice", f"/rooms/{room}/members", at="dance")[0] == 400
    assert set(server.ok("bob", "GET", f"/rooms/{room}/joined_members")["joined"]) == {"@alice:x", "@bob:x"}
    assert server.get("carol", f"/rooms/{room}/joined_members")[0] == 403
    assert server.ok("bob", "GET", "/joined_rooms") == {"joined_rooms": [room]}
    assert server.ok("carol", "GET", "/joined_rooms") == {"joined_rooms": []}


def test_context_around_an_event(server: RoomServer) -> None:
    room = server.create("alice")
    said = [server.say("alice", room, str(number)) for number in range(9)]
    body = server.ok("alice", "GET", f"/rooms/{room}/context/{said[4]}", limit=4)
    assert body["event"]["event_id"] == said[4]
    assert [event["event_id"] for event in body["events_before"]] == [said[3], said[2]]
    assert [event["event_id"] for event in body["events_after"]] == [said[5], said[6]]
    for token, direction, following in ((body["start"], "b", said[1]), (body["end"], "f", said[7])):
        page = server.ok("alice", "GET", f"/rooms/{room}/messages", **{"from": token, "dir": direction, "limit": 1})
        assert page["chunk"][0]["event_id"] == following
    lazy = json.dumps({"lazy_load_members": True})
    state = server.ok("alice", "GET", f"/rooms/{room}/context/{said[4]}", filter=lazy)["state"]
    assert [event["state_key"] for event in state if event["type"] == "m.room.member"] == ["@alice:x"]
    alone = server.ok("alice", "GET", f"/rooms/{room}/context/{said[4]}", limit=0)
    assert alone["events_before"] == alone["events_after"] == []


@pytest.mark.parametrize(
    "query",
    [{"dir": "x"}, {"limit": -1}, {"limit": "a"}, {"from": "x"}, {"to": "x"}, {"filter": "{"}, {"filter": "[]"}],
)
def test_messages_refuses_wrong_parameters(server: RoomServer, query: dict[str, Any]) -> None:
    room = server.create("alice")
    assert server.get("alice", f"/rooms/{room}/messages", **query)[0] == 400


def test_events_wait_for_news(server: RoomServer) -> None:
    room, other = server.create("alice", preset="public_chat"), server.create("carol")
    server.join("bob", room)
    start = server.ok("bob", "GET", "/initialSync")["end"]
    waiting = server.pending("bob", f"/events?timeout=5000&from={start}")
    server.say("carol", other, "elsewhere")
    assert waiting.settle() is None
    event = server.say("alice", room, "news")
    status, body = waiting.settle() or (0, {})
    assert status == 200 and [one["event_id"] for one in body["chunk"]] == [event]
    again = server.pending("bob", f"/events?timeout=5000&from={body['end']}")
    assert again.settle(4.9) is None
    assert again.settle(0.2) == (200, {"start": body["end"], "end": server.synced("bob")["next_batch"], "chunk": []})
    server.invite("carol", other, "bob")
    chunk = server.ok("bob", "GET", "/events", **{"from": body["end"], "timeout": 0})["chunk"]
    assert [one["content"]["membership"] for one in chunk] == ["invite"]
    server.kick("alice", room, "bob")
    server.say("alice", room, "gone")
    chunk = server.ok("bob", "GET", "/events", **{"from": body["end"], "timeout": 0})["chunk"]
    assert [one["content"].get("membership") for one in chunk] == ["invite", "leave"]
    assert server.get("bob", "/events", **{"from": "x"})[0] == 400


def test_b02_the_end_of_a_session_ends_its_waiting(server: RoomServer) -> None:
    room = server.create("alice", initial_state=[world_readable()])
    waiting = server.pending("bob", "/events?timeout=60000")
    peeking = server.pending("bob", f"/events?timeout=60000&room_id={quote(room)}")
    other = server.pending("bob/PHONE", "/events?timeout=60000")
    server.polls.revoked("@bob:x", "DEVICE_bob", "token_bob")
    for poll in (waiting, peeking):
        assert (poll.settle() or (0,))[0] == 401
    assert other.settle() is None
    server.polls.locked("@bob:x")
    assert (other.settle() or (0,))[0] == 200


def test_peeking_into_a_world_readable_room(server: RoomServer) -> None:
    room, private = server.create("alice", initial_state=[world_readable()]), server.create("alice")
    for who in ("bob", "guest1"):
        assert server.get(who, "/events", room_id=private, timeout=0)[0] == 403
        waiting = server.pending(who, f"/events?timeout=5000&room_id={quote(room)}")
        server.say("alice", private)
        assert waiting.settle() is None
        event = server.say("alice", room)
        status, body = waiting.settle() or (0, {})
        assert status == 200 and [one["event_id"] for one in body["chunk"]] == [event]
        assert server.contents(who, room, "m.room.create")["room_version"] == "10"
        assert server.get(who, f"/rooms/{room}/initialSync")[0] == 200
        assert server.get(who, f"/rooms/{room}/members")[0] == 403
    assert server.get("guest1", "/events")[1]["errcode"] == "M_MISSING_PARAM"


def test_i13_tokens_of_the_future_do_not_hang(server: RoomServer) -> None:
    room = server.create("alice")
    future = f"s{server.log.epoch}_{10**15}"
    assert server.get("alice", "/events", **{"from": future, "timeout": 0})[0] == 200
    for token in (future, f"t{server.log.epoch}_{10**15}_{10**15}"):
        for direction in "bf":
            status, _ = server.get("alice", f"/rooms/{room}/messages", **{"from": token, "dir": direction})
            assert status == 200


def world_readable() -> dict[str, Any]:
    return {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}


def test_the_state_of_a_large_room_is_read_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.client.rooms.PART", 2)
    server = RoomServer()
    room = server.create("alice", preset="public_chat")
    for name in ("bob", "carol", "dave"):
        server.ok(name, "POST", f"/join/{room}")
    everybody = {"@alice:x", "@bob:x", "@carol:x", "@dave:x"}
    assert {one["state_key"] for one in server.ok("bob", "GET", f"/rooms/{room}/members")["chunk"]} == everybody
    assert server.pauses == 2
    assert set(server.ok("bob", "GET", f"/rooms/{room}/joined_members")["joined"]) == everybody
    assert server.pauses == 4
    state = server.ok("bob", "GET", f"/rooms/{room}/state")
    assert len(state) == len({(one["type"], one["state_key"]) for one in state}) > 8
    assert server.pauses == 4 + len(state) // 2
