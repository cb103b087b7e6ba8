"""Deactivation with ``erase``: messages lose their content for whoever was not there."""

from typing import Any

import pytest

from storage.log.account_data import data_between, data_of
from tests.fakes.room_server import RoomServer


def shown(server: RoomServer, who: str, room: str, event: str) -> list[Any]:
    """The event's content in every place where a reader meets it."""
    direct = server.ok(who, "GET", f"/rooms/{room}/event/{event}")
    page = server.ok(who, "GET", f"/rooms/{room}/messages", limit=50)["chunk"]
    timeline = server.synced(who)["rooms"]["join"][room]["timeline"]["events"]
    found = [direct, *(one for one in page + timeline if one["event_id"] == event)]
    return [one["content"] for one in found]


def test_erased_messages_are_for_those_who_were_there(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    event = server.say("alice", room, "secret")
    content = {"msgtype": "m.text", "body": "secret"}
    server.join("carol", room)
    assert shown(server, "carol", room, event) == [content] * 3
    batch = server.log.begin()
    server.departures.bring(batch, {"user_id": "@alice:x", "erase": True})
    server.run(server.log.append(batch))
    for now in (server, server.restart()):
        assert shown(now, "bob", room, event) == [content] * 3
        assert shown(now, "carol", room, event) == [{}] * 3
        assert now.contents("carol", room, "m.room.join_rules") == {"join_rule": "public"}


@pytest.mark.parametrize("erase", [True, False])
def test_account_data_goes_with_the_account(server: RoomServer, erase: bool) -> None:
    room = server.create("alice")
    for room_id in ("", room):
        for number in range(2):
            server.set_data("alice", "m.x", {"n": number}, room_id)
    server.set_data("bob", "m.x", {"n": 1})
    batch = server.log.begin()
    server.departures.bring(batch, {"user_id": "@alice:x", "erase": erase})
    server.run(server.log.append(batch))
    server.clock.advance(1)
    server.run(server.rooms.settled())
    with server.log.snapshot() as snapshot:
        assert len(data_of(snapshot, "@alice:x")) == 0
        assert len(list(data_between(snapshot, "@alice:x", 0, 10**9))) == 0
        assert len(data_of(snapshot, "@bob:x")) == 1
