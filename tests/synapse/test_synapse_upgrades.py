"""A room gets a successor, made on its server or on the other; people there follow."""

from urllib.parse import quote

import pytest

from tests.synapse.person import Person
from tests.synapse.test_synapse_rooms import meet, pair, server_of

pytestmark = pytest.mark.synapse
__all__ = ["pair"]
STEPS = [("6", "10"), ("10", "11"), ("11", "12"), ("12", "12")]


@pytest.mark.parametrize("by", ["the host", "the guest"])
@pytest.mark.parametrize(("version", "next_version"), STEPS)
def test_upgrades(pair: tuple[Person, Person], version: str, next_version: str, by: str) -> None:
    host, guest = pair
    room = meet(host, guest, version, name="Old hall", room_alias_name=host.name)
    levels = host.state(room, "m.room.power_levels") or {}
    levels["users"][guest.user_id] = 150 if version == "12" else 100
    guest.sees(room, host.put_state(room, "m.room.power_levels", levels))
    leads, follows = (host, guest) if by == "the host" else (guest, host)
    successor = leads.call("POST", f"/v3/rooms/{quote(room)}/upgrade", {"new_version": next_version})["replacement_room"]
    (tombstone,) = follows.until(
        lambda: [event for event in follows.timeline[room] if event["type"] == "m.room.tombstone"], "the tombstone"
    )
    assert tombstone["content"]["replacement_room"] == successor
    follows.join(successor, tombstone["sender"].partition(":")[2])
    follows.until(lambda: successor in follows.joined, "the new room")
    create = follows.state(successor, "m.room.create") or {}
    assert (create["predecessor"]["room_id"], create["room_version"]) == (room, next_version)
    assert follows.state(successor, "m.room.name") == {"name": "Old hall"}
    leads.sees_member(successor, follows, "join")
    leads.sees(successor, follows.say(successor, "nice here"))
    follows.sees(successor, leads.put_state(successor, "m.room.topic", {"topic": "We moved"}), "the topic")
    if leads is host:  # only the alias's own server can point it to the new room
        directory = f"/v3/directory/room/{quote(f'#{host.name}:{server_of(host)}')}"
        assert guest.call("GET", directory)["room_id"] == successor
