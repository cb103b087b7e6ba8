"""Queues towards other servers: what goes where, in which order, and what failures and restarts leave behind."""

from collections import Counter
from itertools import pairwise

import pytest

from federation.outbound.destination import LONGEST_DELAY_MS
from federation.outbound.queue import STARTS_PER_SECOND, UNSURE_AT_ONCE
from federation.rules.hashes import encode_base64
from federation.rules.signing import SigningKey, sign_json
from homeserver.keys.remote_inboxes import RemoteQueues
from homeserver.rooms.append import append_event
from homeserver.rooms.room import Draft
from storage.log import destinations, device_lists
from tests.fakes.outbound import Sending, user_id

HOURS = 3600


@pytest.fixture
def world() -> Sending:
    return Sending().begin()


def test_events_go_to_the_servers_in_the_room_in_order(world: Sending) -> None:
    room = world.shared("one", "two")
    alone = world.room("a")
    for number in range(120):
        world.say("a", room, f"{number}")
    world.say("a", alone, "secret")
    world.settle(1)
    for server in ("one", "two"):
        assert world.peers.texts(server) == [str(number) for number in range(120)]
    assert all(len(body["pdus"]) <= 50 for _, body in world.peers.taken)
    assert all(txn_id.isdecimal() for _, _, txn_id in world.peers.asked)
    assert {body["origin"] for _, body in world.peers.taken} == {"x"}


def test_what_others_send_is_not_sent_on(world: Sending) -> None:
    room = world.shared("one")
    world.comes("@r:two", room)
    world.settle(1)
    assert [pdu["sender"] for pdu in world.peers.pdus("one")] == []


def test_who_is_thrown_out_still_hears_of_it_and_of_nothing_after(world: Sending) -> None:
    room = world.shared("one", "two")
    world.member(user_id("a"), "@r:one", room, "leave")
    world.say("a", room, "after")
    world.settle(1)
    assert [pdu["content"].get("membership") for pdu in world.peers.pdus("one")] == ["leave"]
    assert world.peers.texts("two") == ["after"]


def test_an_invite_goes_to_those_in_the_room_not_to_the_invited(world: Sending) -> None:
    room = world.shared("one")
    world.member(user_id("a"), "@guest:two", room, "invite")
    world.settle(1)
    assert [pdu["state_key"] for pdu in world.peers.pdus("one")] == ["@guest:two"]
    assert world.peers.pdus("two") == []
    world.member(user_id("a"), "@guest:two", room, "leave")
    world.settle(1)
    assert [pdu["content"]["membership"] for pdu in world.peers.pdus("two")] == ["leave"]


def test_an_invite_that_we_made_in_another_s_name_goes_to_their_server_too(world: Sending) -> None:
    """A third-party invite of theirs that a user of ours has redeemed."""
    identity = SigningKey.from_seed(b"i" * 32, "id", "ed25519:0")
    room_id = world.shared("one", "two")
    room = world.rooms.get(room_id)
    offered = {"public_key": encode_base64(bytes(identity.verify_key)), "display_name": "c"}
    for sender, type_, key, content in (
        (user_id("a"), "m.room.power_levels", "", {"users": {"@r:one": 100, user_id("a"): 100}}),
        ("@r:one", "m.room.third_party_invite", "t", offered),
    ):
        world.run(append_event(world.rooms, room, Draft(sender, type_, content, state_key=key)))
    signed = sign_json({"mxid": user_id("c"), "token": "t"}, "id", identity)
    content = {"membership": "invite", "third_party_invite": {"display_name": "c", "signed": signed}}
    world.run(append_event(world.rooms, room, Draft("@r:one", "m.room.member", content, state_key=user_id("c"))))
    world.settle(1)
    for server in ("one", "two"):
        assert [pdu["state_key"] for pdu in world.peers.pdus(server)][-1] == user_id("c")


def test_e01_a_dead_server_delays_only_itself(world: Sending) -> None:
    room = world.shared("dead", "live")
    world.peers.dead.add("dead")
    for number in range(5):
        world.say("a", room, f"{number}")
    world.settle(20)
    assert world.peers.texts("live") == list("01234")
    assert world.peers.texts("dead") == []
    world.peers.dead.clear()
    world.settle(60)
    assert world.peers.texts("dead") == list("01234")


def test_e01_a_silent_server_delays_only_itself(world: Sending) -> None:
    from twisted.internet.defer import Deferred

    room = world.shared("slow", "live")
    hanging: Deferred[None] = Deferred()
    world.peers.hold["slow"] = hanging
    for number in range(3):
        world.say("a", room, f"{number}")
        world.settle(1)
    assert world.peers.texts("live") == list("012")
    assert len([1 for _, server, _ in world.peers.asked if server == "slow"]) == 1
    del world.peers.hold["slow"]
    hanging.callback(None)
    world.settle(1)
    assert world.peers.texts("slow") == list("012")


def test_e01_back_off_grows_and_survives_a_restart(world: Sending) -> None:
    room = world.shared("dead")
    world.peers.dead.add("dead")
    world.say("a", room, "1")
    world.settle(600)
    tries = [at for at, server, _ in world.peers.asked if server == "dead"]
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) >= 4
    assert gaps == sorted(gaps)
    (before,) = world.outbound.peers()
    again = world.again()
    (after,) = again.outbound.peers()
    assert (after["failures"], after["retry_at"]) == (before["failures"], before["retry_at"])
    asked = len(again.peers.asked)
    again.settle(5)
    assert len(again.peers.asked) == asked


@pytest.mark.parametrize("hours", [-24, 24])
def test_i15_a_wall_clock_that_is_set_changes_no_wait(world: Sending, hours: int) -> None:
    room = world.shared("dead")
    world.peers.dead.add("dead")
    world.say("a", room, "1")
    world.settle(1)
    world.wall_error_ms = hours * 3_600_000
    world.settle(60)
    tries = [at for at, server, _ in world.peers.asked if server == "dead"]
    assert 3 <= len(tries) <= 5
    world.peers.dead.clear()
    world.settle(120)
    assert world.peers.texts("dead") == ["1"]


def test_i15_a_restart_with_the_clock_set_back_gives_no_transaction_id_twice(world: Sending) -> None:
    room = world.shared("one")
    world.settle(60)
    world.say("a", room, "1")
    world.settle(1)
    before = {txn_id for _, _, txn_id in world.peers.asked}
    again = world.again(dice=0.25, wall_error_ms=-61_000)
    again.settle(60)
    again.say("a", room, "2")
    again.settle(1)
    assert again.peers.texts("one") == ["1", "2"]
    assert len({txn_id for _, _, txn_id in again.peers.asked}) == len(again.peers.asked) > len(before)


def test_i15_a_wait_written_down_with_a_clock_ahead_is_no_longer_than_any_other(world: Sending) -> None:
    room = world.shared("dead")
    world.peers.dead.add("dead")
    world.say("a", room, "1")
    world.settle(1)
    again = world.again(wall_error_ms=-30 * HOURS * 1000)
    again.peers.dead.clear()
    again.settle(1.3 * LONGEST_DELAY_MS / 1000)
    assert again.peers.texts("dead") == ["1"]


@pytest.mark.parametrize("graceful", [True, False])
def test_e02_many_items_for_many_dead_servers_come_through_a_restart(world: Sending, graceful: bool) -> None:
    servers = [f"s{number}" for number in range(200)]
    rooms = [world.shared(*servers[start : start + 40]) for start in range(0, 200, 40)]
    world.peers.dead.update(servers)
    for room in rooms:
        for number in range(50):
            world.say("a", room, f"{number}")
    live = world.shared("live")
    world.settle(120)
    again = world.again(graceful)
    again.peers.asked.clear()
    again.say("a", live, "at once")
    again.settle(1)
    assert again.peers.texts("live") == ["at once"]
    again.settle(60)
    per_second = Counter(int(at) for at, server, _ in again.peers.asked if server != "live")
    assert max(per_second.values(), default=0) <= STARTS_PER_SECOND + UNSURE_AT_ONCE
    again.peers.dead.clear()
    again.settle(1200)
    for server in servers:
        assert Counter(again.peers.texts(server)) == Counter(str(number) for number in range(50)), server
    assert again.outbound.stats()["destinations_behind"] == 0


def test_e03_an_item_that_is_never_taken_is_set_aside_and_the_rest_flows(world: Sending) -> None:
    room = world.shared("picky")
    world.settle(1)
    world.peers.poison = "poison"
    for text in ("1", "2", "poison", "3", "4"):
        world.say("a", room, text)
    world.settle(4 * HOURS)
    assert world.peers.texts("picky") == ["1", "2", "3", "4"]
    assert world.outbound.stats()["set_aside"] == 1


def test_e03_a_broken_server_loses_nothing(world: Sending) -> None:
    room = world.shared("broken")
    world.peers.broken.add("broken")
    for number in range(10):
        world.say("a", room, f"{number}")
    world.settle(2 * HOURS)
    assert world.outbound.stats()["set_aside"] == 0
    world.peers.broken.clear()
    world.outbound.alive("broken")
    world.settle(600)
    assert world.peers.texts("broken") == [str(number) for number in range(10)]


def test_a_long_absence_ends_with_the_heads_of_the_room(world: Sending) -> None:
    room = world.shared("away", "here")
    world.peers.dead.add("away")
    for number in range(250):
        world.say("a", room, f"{number}")
        if number % 50 == 0:
            world.settle(60)
    world.settle(HOURS)
    world.peers.dead.clear()
    world.outbound.alive("away")
    world.settle(10)
    assert world.peers.texts("away") == ["249"]
    world.say("a", room, "next")
    world.settle(1)
    assert world.peers.texts("away") == ["249", "next"]


def test_what_is_said_while_a_server_is_away_and_thrown_out_stays_here(world: Sending) -> None:
    room = world.shared("away", "here")
    world.peers.dead.add("away")
    world.say("a", room, "before")
    world.settle(300)
    world.member(user_id("a"), "@r:away", room, "leave")
    world.say("a", room, "private")
    world.comes("@r:away", room)
    world.say("a", room, "back")
    world.settle(10)
    world.peers.dead.clear()
    world.outbound.alive("away")
    world.settle(10)
    assert world.peers.texts("away") == ["before", "back"]


def test_hello_at_the_start_to_those_that_were_well(world: Sending) -> None:
    world.shared("one", "two", "dead")
    room = world.shared("dead")
    world.say("a", room, "1")
    world.say("a", world.shared("one", "two"), "1")
    world.settle(5)
    again = world.again()
    again.peers.taken.clear()
    again.settle(5)
    assert sorted(server for server, body in again.peers.taken if not body["pdus"]) == ["dead", "one", "two"]


def test_what_is_replayed_after_a_kill_is_not_sent_to_who_came_later(world: Sending) -> None:
    room = world.shared("one")
    world.say("a", room, "before")
    world.settle(1)
    world.comes("@r:two", room)
    world.say("a", room, "after")
    world.settle(1)
    assert world.peers.texts("two") == ["after"]
    again = world.again(graceful=False)
    again.settle(1)
    assert "before" in again.peers.texts("one")[2:], "what was sent after the last checkpoint is sent once more"
    assert set(again.peers.texts("two")) == {"after"}


def test_what_came_before_a_server_is_not_replayed_to_it_when_nothing_was_sent_to_it_yet(world: Sending) -> None:
    room = world.room("a")
    world.say("a", room, "before")
    world.comes("@r:two", room)
    again = world.again(graceful=False)
    again.settle(1)
    assert again.peers.pdus("two") == []
    again.say("a", room, "after")
    again.settle(1)
    assert again.peers.texts("two") == ["after"]


def test_who_was_thrown_out_hears_of_it_in_a_replay(world: Sending) -> None:
    room = world.room("a")
    world.comes("@r:two", room)
    world.peers.dead.add("two")
    world.member(user_id("a"), "@r:two", room, "leave")
    again = world.again(graceful=False)
    again.peers.dead.clear()
    again.settle(600)
    assert [pdu["content"]["membership"] for pdu in again.peers.pdus("two")] == ["leave"]


def test_to_device_messages_wait_in_the_log_and_go_once(world: Sending) -> None:
    world.peers.dead.add("one")
    ids = iter(["id1", "id2"])
    queues = RemoteQueues(lambda: next(ids))
    for number in range(2):
        batch = world.log.begin()
        queues.queue(batch, user_id("a"), "m.test", {"@r:one": {"DEV": {"n": number, "half": 0.5}}})
        world.run(world.log.append(batch))
    world.settle(100)
    again = world.again(graceful=False)
    again.peers.dead.clear()
    again.settle(300)
    edus = again.peers.edus("one", "m.direct_to_device")
    assert [(edu["message_id"], edu["messages"]["@r:one"]["DEV"]["n"]) for edu in edus] == [("id1", 0), ("id2", 1)]
    assert edus[0]["sender"] == user_id("a")
    assert edus[0]["type"] == "m.test"
    with again.log.snapshot() as snapshot:
        assert destinations.messages(snapshot, "one", 10) == []
    once_more = again.again()
    once_more.settle(60)
    assert len(once_more.peers.edus("one", "m.direct_to_device")) == 2


def waiting(world: Sending, server: str) -> list[int]:
    with world.log.snapshot() as snapshot:
        return destinations.message_positions(snapshot, server)


def to_devices(world: Sending, server: str, *bodies: int) -> None:
    queues = RemoteQueues(lambda: "m")
    for body in bodies:
        batch = world.log.begin()
        queues.queue(batch, user_id("a"), "m.x", {f"@r:{server}": {"D": {"body": body}}})
        world.run(world.log.append(batch))
    world.settle(1)


def test_to_device_messages_for_a_server_that_is_long_dead_are_dropped(world: Sending) -> None:
    """After a month; those that come later wait no longer than an hour. Others' messages are none of their business."""
    world.shared("dead", "slow")
    world.peers.dead = {"dead"}
    to_devices(world, "dead", 1, 2)
    world.clock.advance(29 * 24 * HOURS)
    world.settle()
    world.peers.dead = {"dead", "slow"}
    to_devices(world, "slow", 3)
    assert len(waiting(world, "dead")) == 2
    world.clock.advance(24 * HOURS)
    world.settle(1)
    assert waiting(world, "dead") == [] and len(waiting(world, "slow")) == 1
    to_devices(world, "dead", 4)
    world.clock.advance(1 * HOURS)
    world.settle(1)
    assert waiting(world, "dead") == []
    world.peers.dead = set()
    world.clock.advance(7 * HOURS)
    world.settle(2)
    to_devices(world, "dead", 5)
    found = [content["messages"]["@r:dead"]["D"]["body"] for content in world.peers.edus("dead", "m.direct_to_device")]
    assert found == [5]
    assert len(world.peers.edus("slow", "m.direct_to_device")) == 1


def test_only_so_many_to_device_messages_wait(world: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest; and only for who does not answer."""
    monkeypatch.setattr("federation.outbound.expiry.MOST_MESSAGES", 3)
    monkeypatch.setattr("federation.outbound.expiry.CHUNK", 2)
    world.shared("dead")
    world.peers.dead = {"dead"}
    to_devices(world, "dead", *range(10))
    newest = waiting(world, "dead")[-3:]
    world.settle(1 * HOURS)
    assert waiting(world, "dead") == newest
    world.peers.dead = set()
    world.clock.advance(7 * HOURS)
    world.settle(2)
    found = [content["messages"]["@r:dead"]["D"]["body"] for content in world.peers.edus("dead", "m.direct_to_device")]
    assert found == [7, 8, 9]


def test_typing_is_told_when_it_begins_and_ends(world: Sending) -> None:
    room = world.shared("one")
    world.typing.start(room, user_id("a"), 4000)
    world.typing.start(room, "@r:one", 4000)
    world.settle(6)
    told = world.peers.edus("one", "m.typing")
    assert told == [
        {"room_id": room, "user_id": user_id("a"), "typing": True},
        {"room_id": room, "user_id": user_id("a"), "typing": False},
    ]


def test_receipts_are_told_but_not_the_private_ones(world: Sending) -> None:
    room = world.shared("one")
    event_id = world.say("a", room)
    world.read("a", room, event_id)
    world.read("a", room, event_id, "m.read.private")
    world.settle(1)
    (content,) = world.peers.edus("one", "m.receipt")
    assert content[room].keys() == {"m.read"}
    assert content[room]["m.read"][user_id("a")]["event_ids"] == [event_id]


def test_presence_is_told_to_who_shares_a_room(world: Sending) -> None:
    world.shared("one")
    world.presence.set(user_id("a"), "D", "online", "here")
    world.settle(1)
    (content,) = world.peers.edus("one", "m.presence")
    assert content["push"][0]["user_id"] == user_id("a")
    assert content["push"][0]["status_msg"] == "here"


def test_changes_of_devices_form_a_chain(world: Sending) -> None:
    world.shared("one")
    for device_id in ("D1", "D2"):
        batch = world.log.begin()
        device_lists.put_change(batch, user_id("a"), device_id)
        world.run(world.log.append(batch))
        world.settle(1)
    first, second = world.peers.edus("one", "m.device_list_update")
    assert (first["device_id"], first["prev_id"]) == ("D1", [])
    assert (second["device_id"], second["prev_id"]) == ("D2", [first["stream_id"]])


def test_a_change_of_devices_during_an_absence_makes_the_peer_ask(world: Sending) -> None:
    world.shared("one")
    world.peers.dead.add("one")
    for _ in range(2):
        batch = world.log.begin()
        device_lists.put_change(batch, user_id("a"), "D1")
        world.run(world.log.append(batch))
        world.settle(200)
    world.peers.dead.clear()
    world.outbound.alive("one")
    world.settle(5)
    (told,) = world.peers.edus("one", "m.device_list_update")
    assert told["prev_id"] not in ([], [told["stream_id"]])
