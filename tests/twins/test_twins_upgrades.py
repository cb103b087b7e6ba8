"""Upgrades seen from another server: what it has of the old room moves when its users follow."""

from typing import Any
from urllib.parse import quote

from tests.fakes.homeservers import Homes, settle
from tests.fakes.internet import Internet

ALIAS = "#talk:b.example"


def test_the_other_servers_aliases_directory_and_tags_follow_its_users(homes: Homes) -> None:
    internet = Internet(1)
    sites = [homes.site(internet, name) for name in ("a.example", "b.example")]
    alice, bob = homes.person(sites[0], "alice"), homes.person(sites[1], "bob")
    levels = {"users": {alice.user_id: 100, bob.user_id: 50}}
    wish = {"preset": "public_chat", "room_version": "10", "power_level_content_override": levels}
    old = alice.ask("POST", "/createRoom", wish)["room_id"]
    bob.ask("POST", f"/join/{quote(old)}?server_name=a.example", {})
    bob.ask("PUT", f"/directory/room/{quote(ALIAS)}", {"room_id": old})
    bob.ask("PUT", f"/directory/list/room/{quote(old)}", {"visibility": "public"})
    bob.ask("PUT", f"/user/{quote(bob.user_id)}/rooms/{quote(old)}/tags/mine", {"order": 0.5})

    def seen_by_bob() -> tuple[str, set[str]]:
        listed = {room["room_id"] for room in bob.ask("GET", "/publicRooms")["chunk"]}
        return bob.ask("GET", f"/directory/room/{quote(ALIAS)}")["room_id"], listed

    def join(room: Any) -> None:
        bob.ask("POST", f"/join/{quote(room)}?server_name=a.example", {})

    predecessor = {"room_id": old, "event_id": "$tombstone"}
    claimed = {"preset": "public_chat", "creation_content": {"predecessor": predecessor}}
    join(alice.ask("POST", "/createRoom", claimed)["room_id"])
    assert seen_by_bob() == (old, {old}), "a room that only says so is no successor"

    new = alice.ask("POST", f"/rooms/{quote(old)}/upgrade", {"new_version": "12"})["replacement_room"]
    settle(internet, sites)
    assert seen_by_bob() == (old, {old})
    join(new)
    assert seen_by_bob() == (new, {new})
    tags = bob.ask("GET", f"/user/{quote(bob.user_id)}/rooms/{quote(new)}/tags")["tags"]
    assert tags == {"mine": {"order": 0.5}}
