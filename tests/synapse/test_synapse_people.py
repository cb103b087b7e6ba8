"""What users of Folkmoot and Synapse know of each other: typing, receipts, devices and their keys, profiles."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.synapse.person import Person
from tests.synapse.test_synapse_rooms import meet, pair

pytestmark = pytest.mark.synapse
__all__ = ["pair"]
Make = Callable[[str], Person]


def test_typing_and_receipts(pair: tuple[Person, Person]) -> None:
    host, guest = pair
    room = meet(host, guest, "12")
    said = host.say(room, "look")
    guest.sees(room, said)
    for writer, watcher in ((host, guest), (guest, host)):
        path = f"/v3/rooms/{quote(room)}/typing/{quote(writer.user_id)}"
        writer.call("PUT", path, {"typing": True, "timeout": 20000})
        watcher.until(lambda: _typing(watcher, room, writer), "typing")  # noqa: B023
    guest.call("POST", f"/v3/rooms/{quote(room)}/receipt/m.read/{quote(said)}")

    def read() -> bool:
        receipts = [one["content"] for one in host.ephemeral.get(room, []) if one["type"] == "m.receipt"]
        return any(guest.user_id in one.get(said, {}).get("m.read", {}) for one in receipts)

    host.until(read, "the receipt")


def _typing(watcher: Person, room: str, writer: Person) -> bool:
    events = watcher.ephemeral.get(room, [])
    return any(writer.user_id in one["content"]["user_ids"] for one in events if one["type"] == "m.typing")


def _device_keys(person: Person) -> dict[str, Any]:
    return {
        "user_id": person.user_id,
        "device_id": person.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{person.device_id}": "A" * 43, f"curve25519:{person.device_id}": "B" * 43},
        "signatures": {person.user_id: {f"ed25519:{person.device_id}": "C" * 86}},
    }


def test_keys_of_devices(pair: tuple[Person, Person]) -> None:
    host, guest = pair
    meet(host, guest, "10")
    for owner, asker in ((host, guest), (guest, host)):
        asker.changed.clear()
        one_time = {"key": "D" * 43, "signatures": {owner.user_id: {f"ed25519:{owner.device_id}": "E" * 86}}}
        keys = _device_keys(owner)
        owner.call(
            "POST", "/v3/keys/upload", {"device_keys": keys, "one_time_keys": {"signed_curve25519:AAAA": one_time}}
        )
        asker.until(lambda: owner.user_id in asker.changed, "that the devices changed")  # noqa: B023
        answer = asker.call("POST", "/v3/keys/query", {"device_keys": {owner.user_id: []}})
        assert answer["failures"] == {}
        got = answer["device_keys"][owner.user_id][owner.device_id]
        assert {key: got[key] for key in keys} == keys
        wanted = {"one_time_keys": {owner.user_id: {owner.device_id: "signed_curve25519"}}}
        claimed = asker.call("POST", "/v3/keys/claim", wanted)
        assert claimed["one_time_keys"] == {owner.user_id: {owner.device_id: {"signed_curve25519:AAAA": one_time}}}
        again = asker.call("POST", "/v3/keys/claim", wanted)
        assert not again["one_time_keys"].get(owner.user_id)


def test_messages_to_devices(pair: tuple[Person, Person]) -> None:
    host, guest = pair
    meet(host, guest, "12")
    for sender, receiver in ((host, guest), (guest, host)):
        messages = {receiver.user_id: {receiver.device_id: {"to": "one"}}}
        sender.call("PUT", "/v3/sendToDevice/org.example.note/1", {"messages": messages})
        sender.call("PUT", "/v3/sendToDevice/org.example.note/2", {"messages": {receiver.user_id: {"*": {"to": "all"}}}})
        receiver.until(lambda: len(receiver.to_device) >= 2, "the messages")  # noqa: B023
        assert [one["content"] for one in receiver.to_device] == [{"to": "one"}, {"to": "all"}]
        assert {one["sender"] for one in receiver.to_device} == {sender.user_id}


def test_profiles(pair: tuple[Person, Person]) -> None:
    host, guest = pair
    for owner, asker in ((host, guest), (guest, host)):
        path = f"/v3/profile/{quote(owner.user_id)}"
        owner.call("PUT", path + "/displayname", {"displayname": "Someone Else"})
        assert asker.call("GET", path)["displayname"] == "Someone Else"
        assert asker.ask("GET", f"/v3/profile/{quote('@nobody:' + owner.user_id.partition(':')[2])}").status == 404
    room = meet(host, guest, "12")
    assert host.members(room).keys() == guest.members(room).keys()
    guest.call("PUT", f"/v3/profile/{quote(guest.user_id)}/displayname", {"displayname": "Newly Named"})
    host.until(
        lambda: (host.state(room, "m.room.member", guest.user_id) or {}).get("displayname") == "Newly Named",
        "the new name",
    )
