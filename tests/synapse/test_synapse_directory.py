"""Finding rooms of the other server: by alias, in its list."""

from urllib.parse import quote

import pytest

from tests.synapse.person import Person
from tests.synapse.test_synapse_rooms import VERSIONS, meet, pair, server_of

pytestmark = pytest.mark.synapse
__all__ = ["pair"]


@pytest.mark.parametrize("version", VERSIONS)
def test_aliases(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    alias = f"#{host.name}:{server_of(host)}"
    path = f"/v3/directory/room/{quote(alias)}"
    assert guest.ask("GET", path).errcode == "M_NOT_FOUND"
    room = host.create(version, preset="public_chat", room_alias_name=host.name)
    found = guest.call("GET", path)
    assert found["room_id"] == room
    assert server_of(host) in found["servers"]
    guest.join(alias)
    host.sees_member(room, guest, "join")
    own = f"#{guest.name}:{server_of(guest)}"
    guest.call("PUT", f"/v3/directory/room/{quote(own)}", {"room_id": room})
    assert host.call("GET", f"/v3/directory/room/{quote(own)}")["room_id"] == room
    host.call("DELETE", path)
    assert guest.ask("GET", path).errcode == "M_NOT_FOUND"


@pytest.mark.parametrize("version", VERSIONS)
def test_lists_of_rooms(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    word = f"market{host.name}"
    rooms = [
        host.create(version, preset="public_chat", visibility="public", name=f"{word} {number}", topic="Anything goes")
        for number in range(3)
    ]
    hidden = meet(host, guest, version, name=f"{word} behind the house")
    where = {"server": server_of(host)}
    wish = {"limit": 2, "filter": {"generic_search_term": word}}
    page = guest.call("POST", "/v3/publicRooms", wish, where)
    assert len(page["chunk"]) == 2
    rest = guest.call("POST", "/v3/publicRooms", wish | {"since": page["next_batch"]}, where)
    listed = page["chunk"] + rest["chunk"]
    assert {one["room_id"] for one in listed} == set(rooms)
    assert {(one["topic"], one["num_joined_members"]) for one in listed} == {("Anything goes", 1)}
    # Synapse keeps for a while what it was told to a question that it asked without a search, hence another one each time.
    everything = guest.call("GET", "/v3/publicRooms", None, where | {"limit": str(100 + int(version))})["chunk"]
    ids = {one["room_id"] for one in everything}
    assert set(rooms) <= ids
    assert hidden not in ids
