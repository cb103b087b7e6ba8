"""I12: a damaged row costs what it tells of, and nothing else."""

from collections.abc import Callable
from urllib.parse import quote

import pytest

from storage.log.catalog import EVENTS, MEMBERSHIPS, NODES, ROOMS, Table
from storage.log.keys import part, u64
from storage.log.rooms import room_meta
from storage.memory import MemoryStore
from tests.fakes.homeservers import Homes, Person, Refused, Site, settle
from tests.fakes.internet import Internet

DAMAGE = b"\xc1 this is no row"
TEXT = {"msgtype": "m.text", "body": "hello"}


class Scene:
    """Alice and Bob in a room whose rows get damaged, and in one that is sound."""

    def __init__(self, homes: Homes) -> None:
        self.internet = Internet(1)
        self.site: Site = homes.site(self.internet, "a.example")
        self.alice: Person = homes.person(self.site, "alice")
        self.bob: Person = homes.person(self.site, "bob")
        self.damaged, self.sound = (self.room() for _ in range(2))
        self.nid = self.meta_nid(self.damaged)

    def room(self) -> str:
        room_id: str = self.alice.ask("POST", "/createRoom", {"preset": "public_chat", "visibility": "public"})["room_id"]
        self.bob.ask("POST", f"/join/{quote(room_id)}", {})
        self.say(room_id, "before")
        return room_id

    def meta_nid(self, room_id: str) -> int:
        meta = room_meta(self.site.services.log, room_id)
        assert meta is not None
        return meta.nid

    def say(self, room_id: str, text: str) -> None:
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{self.alice.new_transaction()}"
        self.alice.ask("PUT", path, {"msgtype": "m.text", "body": text})

    def damage(self, table: Table, start: bytes) -> None:
        """Every row whose key begins so."""
        store = self.site.store
        assert isinstance(store, MemoryStore)
        rows = store.tables[table.number].values
        found = [key for key in rows if key.startswith(start)]
        assert found
        for key in found:
            rows[key] = DAMAGE


DAMAGES: dict[str, Callable[[Scene], None]] = {
    "room": lambda scene: scene.damage(ROOMS, part(scene.damaged)),
    "events": lambda scene: scene.damage(EVENTS, u64(scene.nid)),
    "state": lambda scene: scene.damage(NODES, u64(scene.nid)),
    "membership": lambda scene: scene.damage(MEMBERSHIPS, part(scene.alice.user_id) + part(scene.damaged)),
}


@pytest.mark.parametrize("rows", DAMAGES)
def test_i12_a_damaged_row_leaves_the_other_rooms_alone(homes: Homes, rows: str) -> None:
    scene = Scene(homes)
    since = scene.alice.ask("GET", "/sync")["next_batch"]
    scene.site.kill()
    DAMAGES[rows](scene)
    scene.site.start()
    scene.say(scene.sound, "after")
    for person in (scene.alice, scene.bob):
        rooms = person.ask("GET", "/sync")["rooms"]["join"]
        texts = [event["content"].get("body") for event in rooms[scene.sound]["timeline"]["events"]]
        assert texts[-2:] == ["before", "after"]
    news = scene.alice.ask("GET", f"/sync?since={since}")["rooms"]["join"]
    assert [event["content"]["body"] for event in news[scene.sound]["timeline"]["events"]] == ["after"]
    public = scene.alice.ask("GET", "/publicRooms")["chunk"]
    assert scene.sound in [room["room_id"] for room in public]
    if rows != "membership":
        with pytest.raises(Refused) as caught:
            scene.say(scene.damaged, "into the ruin")
        assert caught.value.status == 500
    scene.say(scene.sound, "still")


def test_i12_events_of_others_for_a_damaged_room_do_not_hold_up_those_for_sound_ones(homes: Homes) -> None:
    scene = Scene(homes)
    far = homes.site(scene.internet, "b.example")
    carol = homes.person(far, "carol")
    for room_id in (scene.damaged, scene.sound):
        carol.ask("POST", f"/join/{quote(room_id)}?server_name=a.example", {})
    settle(scene.internet, [scene.site, far])
    scene.site.kill()
    DAMAGES["room"](scene)
    scene.site.start()
    scene.internet.requests.clear()
    for room_id in (scene.damaged, scene.sound):
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{carol.new_transaction()}"
        carol.ask("PUT", path, {"msgtype": "m.text", "body": "from afar"})
    settle(scene.internet, [scene.site, far])
    chunk = scene.alice.ask("GET", f"/rooms/{quote(scene.sound)}/messages?dir=b")["chunk"]
    assert chunk[0]["content"]["body"] == "from afar"
    sent = [path for origin, _, _, path in scene.internet.requests if origin == "b.example" and "/send/" in path]
    assert len(sent) == len(set(sent)), "a transaction had to be repeated"
