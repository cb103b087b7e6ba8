"""Who meets whom: devices and presence are told to servers for which they are new."""

from storage.log import device_lists
from tests.fakes.outbound import Sending, user_id


def test_who_joins_is_introduced_once() -> None:
    world = Sending().begin()
    batch = world.log.begin()
    version = device_lists.put_change(batch, user_id("b"), "D")
    world.run(world.log.append(batch))
    world.presence.set(user_id("b"), "D", "online", None)
    first, second = world.shared("one"), world.shared("one")
    for room_id in (first, second):
        world.join("b", room_id)
        world.settle()
    (told,) = world.peers.edus("one", "m.device_list_update")
    assert (told["user_id"], told["prev_id"], told["stream_id"]) == (user_id("b"), [], version * 128)
    assert [push["user_id"] for content in world.peers.edus("one", "m.presence") for push in content["push"]] == [user_id("b")]


def test_a_server_that_comes_hears_who_is_present() -> None:
    world = Sending().begin()
    world.presence.set(user_id("a"), "D", "online", None)
    world.shared("one")
    (content,) = world.peers.edus("one", "m.presence")
    assert [push["user_id"] for push in content["push"]] == [user_id("a")]
