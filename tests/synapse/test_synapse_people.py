"""What users of Folkmoot and Synapse know of each other: typing, receipts, devices and their keys, profiles."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.synapse.person import Person
from tests.synapse.test_synapse_rooms import VERSIONS, meet, pair

pytestmark = pytest.mark.synapse
__all__ = ["pair"]
each_version = pytest.mark.parametrize("version", VERSIONS)


@each_version
def test_typing_and_receipts(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = meet(host, guest, version)
    said = host.say(room, "look")
    guest.sees(room, said)
    for writer, watcher in ((host, guest), (guest, host)):
        path = f"/v3/rooms/{quote(room)}/typing/{quote(writer.user_id)}"
        writer.call("PUT", path, {"typing": True, "timeout": 20000})
        watcher.until(lambda: _typing(watcher, room, writer), "typing")  # noqa: B023
        writer.call("PUT", path, {"typing": False})
        watcher.until(lambda: _stopped(watcher, room, writer), "that typing ended")  # noqa: B023
    guest.call("POST", f"/v3/rooms/{quote(room)}/receipt/m.read/{quote(said)}")
    answer = guest.say(room, "seen")
    host.sees(room, answer)
    host.call("POST", f"/v3/rooms/{quote(room)}/receipt/m.read/{quote(answer)}")
    for reader, watcher, event_id in ((guest, host, said), (host, guest, answer)):
        watcher.until(lambda: _read(watcher, room, reader, event_id), "the receipt")  # noqa: B023


def _read(person: Person, room: str, reader: Person, event_id: str) -> bool:
    receipts = [one["content"] for one in person.ephemeral.get(room, []) if one["type"] == "m.receipt"]
    return any(reader.user_id in one.get(event_id, {}).get("m.read", {}) for one in receipts)


def _stopped(watcher: Person, room: str, writer: Person) -> bool:
    events = [one["content"]["user_ids"] for one in watcher.ephemeral[room] if one["type"] == "m.typing"]
    return writer.user_id not in events[-1]


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


@each_version
def test_keys_of_devices(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    meet(host, guest, version)
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


@each_version
def test_messages_to_devices(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    meet(host, guest, version)
    for sender, receiver in ((host, guest), (guest, host)):
        messages = {receiver.user_id: {receiver.device_id: {"to": "one"}}}
        sender.call("PUT", "/v3/sendToDevice/org.example.note/1", {"messages": messages})
        sender.call("PUT", "/v3/sendToDevice/org.example.note/2", {"messages": {receiver.user_id: {"*": {"to": "all"}}}})
        receiver.until(lambda: len(receiver.to_device) >= 2, "the messages")  # noqa: B023
        assert [one["content"] for one in receiver.to_device] == [{"to": "one"}, {"to": "all"}]
        assert {one["sender"] for one in receiver.to_device} == {sender.user_id}


@each_version
def test_profiles(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    for owner, asker in ((host, guest), (guest, host)):
        path = f"/v3/profile/{quote(owner.user_id)}"
        owner.call("PUT", path + "/displayname", {"displayname": "Someone Else"})
        assert asker.call("GET", path)["displayname"] == "Someone Else"
        assert asker.ask("GET", f"/v3/profile/{quote('@nobody:' + owner.user_id.partition(':')[2])}").status == 404
    room = meet(host, guest, version)
    assert host.members(room).keys() == guest.members(room).keys()
    guest.call("PUT", f"/v3/profile/{quote(guest.user_id)}/displayname", {"displayname": "Newly Named"})
    host.until(
        lambda: (host.state(room, "m.room.member", guest.user_id) or {}).get("displayname") == "Newly Named",
        "the new name",
    )


@each_version
def test_presence(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    meet(host, guest, version)
    for watched, watcher in ((host, guest), (guest, host)):
        for told in ({"presence": "unavailable", "status_msg": "at lunch"}, {"presence": "online", "status_msg": "back"}):
            watched.call("PUT", f"/v3/presence/{quote(watched.user_id)}/status", told)

            def known() -> bool:
                return told.items() <= watcher.presence.get(watched.user_id, {}).items()  # noqa: B023

            watcher.until(known, f"{watched.user_id} being {told}")
            asked = watcher.call("GET", f"/v3/presence/{quote(watched.user_id)}/status")
            assert told.items() <= asked.items()
