"""What a client is told when forks meet: the state of the room after it, whatever happened to be sent last."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.homeservers import Homes, settle
from tests.fakes.internet import Internet


@pytest.mark.parametrize("after", ["", "&use_state_after=true"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_change_that_loses_where_forks_meet_is_taken_back(homes: Homes, after: str, restarted: bool) -> None:
    internet = Internet(1)
    sites = [homes.site(internet, name) for name in ("a.example", "b.example")]
    alice, bob = homes.person(sites[0], "alice"), homes.person(sites[1], "bob")
    users = {alice.user_id: 50, bob.user_id: 100}
    override = {"users": users, "state_default": 50}
    room = alice.ask("POST", "/createRoom", {"preset": "public_chat", "room_version": "10"})["room_id"]
    alice.ask("PUT", f"/rooms/{quote(room)}/state/m.room.power_levels", override)
    bob.ask("POST", f"/join/{quote(room)}?server_name=a.example", {})
    bob.ask("PUT", f"/rooms/{quote(room)}/state/m.room.name", {"name": "old"})
    settle(internet, sites)

    internet.cut = {frozenset(site.name for site in sites)}
    alice.ask("PUT", f"/rooms/{quote(room)}/state/m.room.name", {"name": "new"})
    demoted = {**override, "users": {**users, alice.user_id: 0}}
    bob.ask("PUT", f"/rooms/{quote(room)}/state/m.room.power_levels", demoted)
    token = alice.ask("GET", "/sync")["next_batch"]
    internet.cut = set()
    settle(internet, sites)
    bob.say(room, "later")
    settle(internet, sites)
    assert sites[0].state_of(room) == sites[1].state_of(room)
    if restarted:
        # What lies further back is read from the log, not from what the feed remembers.
        sites[0].stop()
        settle(internet, [sites[1]])
        sites[0].start()
        settle(internet, sites)

    def name_in(section: dict[str, Any]) -> list[str]:
        return [event["content"]["name"] for event in section["events"] if event["type"] == "m.room.name"]

    told = alice.ask("GET", f"/sync?since={token}{after}")["rooms"]["join"][room]
    assert name_in(told["state_after" if after else "state"]) == ["old"]
    assert name_in(told["timeline"]) == []
