"""PUT send, state and redact: transactions, limits, idempotence, redactions, aliases in state."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted
from twisted.internet import reactor

from federation.rules.event_format import MAX_PDU_BYTES
from federation.rules.signing import SigningKey
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import Create, Wish
from homeserver.rooms.room import Rooms
from homeserver.rooms.send import Send
from homeserver.web.call import Requester
from storage.log.env import open_log
from tests.fakes.room_server import V3, RoomServer

TEXT = {"msgtype": "m.text", "body": "hello"}


def errcode(answer: tuple[int, dict[str, str]]) -> tuple[int, str]:
    return answer[0], answer[1]["errcode"]


def test_the_same_transaction_gets_the_same_answer(server: RoomServer) -> None:
    room, other = server.create("alice"), server.create("alice")
    path = f"/rooms/{room}/send/m.room.message/t1"
    first = server.ok("alice", "PUT", path, TEXT)
    assert server.ok("alice", "PUT", path, {"msgtype": "m.text", "body": "another"}) == first
    assert server.restart().ok("alice", "PUT", path, TEXT) == first
    assert server.ok("alice/PHONE", "PUT", path, TEXT) != first
    assert server.ok("alice", "PUT", f"/rooms/{other}/send/m.room.message/t1", TEXT) != first
    assert server.ok("alice", "PUT", f"/rooms/{room}/send/org.example/t1", TEXT) != first


def test_two_at_once_with_one_transaction_id_are_one(server: RoomServer) -> None:
    room = server.create("alice")
    path = f"{V3}/rooms/{room}/send/m.room.message/t1"
    first, second = server.pending_put("alice", path, TEXT), server.pending_put("alice", path, TEXT)
    assert second.result is None  # not answered before the first is durable
    first.settle()
    assert first.result == second.result is not None


def test_transaction_id_comes_back_to_the_device_that_sent(server: RoomServer) -> None:
    room = server.create("alice")
    event = server.ok("alice", "PUT", f"/rooms/{room}/send/m.room.message/t1", TEXT)["event_id"]
    path = f"/rooms/{room}/event/{event}"
    assert server.ok("alice", "GET", path)["unsigned"]["transaction_id"] == "t1"
    assert "transaction_id" not in server.ok("alice/PHONE", "GET", path)["unsigned"]


@pytest.mark.parametrize("txn", ["x" * 256, "é" * 128])
def test_long_transaction_ids_are_refused(server: RoomServer, txn: str) -> None:
    room = server.create("alice")
    path = f"/rooms/{room}/send/m.room.message/{quote(txn)}"
    assert errcode(server.put("alice", path, TEXT)) == (400, "M_INVALID_PARAM")


def test_who_is_not_in_the_room_says_nothing(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    path = f"/rooms/{room}/send/m.room.message/t"
    assert errcode(server.put("bob", path, TEXT)) == (403, "M_FORBIDDEN")
    server.join("bob", room)
    server.leave("bob", room)
    assert errcode(server.put("bob", path, TEXT)) == (403, "M_FORBIDDEN")
    assert errcode(server.put("bob", "/rooms/!nowhere:x/send/m.room.message/t", TEXT)) == (404, "M_NOT_FOUND")


def test_a10_an_event_may_be_65536_bytes_and_no_more(server: RoomServer) -> None:
    room = server.create("alice")
    event_id = server.say("alice", room, "")
    event = server.rooms.event(event_id)
    assert event is not None
    spare = MAX_PDU_BYTES - len(event.json)
    assert errcode(send(server, room, {"msgtype": "m.text", "body": "x" * (spare + 1)})) == (413, "M_TOO_LARGE")
    status, answer = send(server, room, {"msgtype": "m.text", "body": "x" * spare})
    assert status == 200
    stored = server.rooms.event(answer["event_id"])
    assert stored is not None and len(stored.json) == MAX_PDU_BYTES


def test_a11_types_and_state_keys_have_255_bytes(server: RoomServer) -> None:
    room = server.create("alice")
    fits, over = "😀" * 63 + "abc", "😀" * 64
    assert server.put("alice", f"/rooms/{room}/state/t/{quote(fits)}", {})[0] == 200
    assert server.put("alice", f"/rooms/{room}/state/{quote(fits)}", {})[0] == 200
    assert errcode(server.put("alice", f"/rooms/{room}/state/t/{quote(over)}", {})) == (413, "M_TOO_LARGE")
    assert errcode(server.put("alice", f"/rooms/{room}/state/{quote(over)}", {})) == (413, "M_TOO_LARGE")
    path = f"/rooms/{room}/send/{quote(over)}/t"
    assert errcode(server.put("alice", path, {})) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    "body, expected",
    [
        (b'{"a": NaN}', "M_NOT_JSON"),
        (b'{"a": 1.5}', "M_BAD_JSON"),
        (b'{"a": 9007199254740992}', "M_BAD_JSON"),
        (b'{"a": "\\ud800"}', "M_NOT_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"{", "M_NOT_JSON"),
    ],
)
def test_a01_a02_content_that_canonical_json_cannot_carry(server: RoomServer, body: bytes, expected: str) -> None:
    room = server.create("alice")
    before = server.log_of(room)
    assert errcode(server.put("alice", f"/rooms/{room}/send/m.room.message/t", body)) == (400, expected)
    assert errcode(server.put("alice", f"/rooms/{room}/state/org.example", body)) == (400, expected)
    assert server.log_of(room) == before


def test_a07_nul_in_content_is_stored_as_it_is(server: RoomServer) -> None:
    room = server.create("alice")
    event = send(server, room, {"msgtype": "m.text", "body": "a\0b"})[1]["event_id"]
    assert server.ok("alice", "GET", f"/rooms/{room}/event/{event}")["content"]["body"] == "a\0b"


def test_setting_state_twice_is_idempotent(server: RoomServer) -> None:
    room = server.create("alice")
    first = server.ok("alice", "PUT", f"/rooms/{room}/state/org.example/", {"a": {"c": 1, "b": 2}})
    assert server.ok("alice", "PUT", f"/rooms/{room}/state/org.example", {"a": {"b": 2, "c": 1}}) == first
    assert server.ok("alice", "PUT", f"/rooms/{room}/state/org.example", {"a": 2}) != first


def test_state_under_a_user_id_is_that_users(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat", power_level_content_override={"state_default": 0})
    server.join("bob", room)
    assert server.put("bob", f"/rooms/{room}/state/org.example/@bob:x", {})[0] == 200
    assert errcode(server.put("bob", f"/rooms/{room}/state/org.example/@alice:x", {})) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "type_, content",
    [
        ("m.room.power_levels", {"users": {"@alice:x": True}}),
        ("m.room.power_levels", {"users": {"@alice:x": "100"}}),
        ("m.room.power_levels", {"users": {"alice": 100}}),
        ("m.room.power_levels", {"users": []}),
        ("m.room.power_levels", {"events_default": None}),
        ("m.room.power_levels", {"events": {"a": 1.0}}),
        ("m.room.join_rules", {}),
        ("m.room.history_visibility", {"history_visibility": 3}),
        ("m.room.canonical_alias", {"alt_aliases": "#a:x"}),
    ],
)
@pytest.mark.parametrize("version", ["1", "10"])
def test_a03_c02_state_of_the_wrong_shape(version: str, type_: str, content: Any) -> None:
    server = RoomServer(version=version)
    room = server.create("alice")
    assert errcode(server.put("alice", f"/rooms/{room}/state/{type_}", content)) == (400, "M_BAD_JSON")


def test_a_room_is_not_replaced_by_itself(server: RoomServer) -> None:
    room = server.create("alice")
    path = f"/rooms/{room}/state/m.room.tombstone"
    assert errcode(server.put("alice", path, {"replacement_room": room})) == (400, "M_INVALID_PARAM")
    assert server.put("alice", path, {"body": "gone", "replacement_room": server.create("alice")})[0] == 200


def test_power_levels_bind_their_giver(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    levels = server.contents("alice", room, "m.room.power_levels")
    levels["users"]["@bob:x"] = 60
    levels["events"]["m.room.power_levels"] = 50
    server.state("alice", room, "m.room.power_levels", levels)
    for key in ("ban", "kick", "redact", "invite", "state_default"):
        raised = {**levels, key: 61}
        assert errcode(server.put("bob", f"/rooms/{room}/state/m.room.power_levels", raised)) == (403, "M_FORBIDDEN")
    notify = {**levels, "notifications": {"room": 61}}
    assert errcode(server.put("bob", f"/rooms/{room}/state/m.room.power_levels", notify)) == (403, "M_FORBIDDEN")
    assert server.put("bob", f"/rooms/{room}/state/m.room.power_levels", {**levels, "ban": 60})[0] == 200


def test_redactions(server: RoomServer) -> None:
    room, other = server.create("alice", preset="public_chat"), server.create("alice")
    for who in ("bob", "carol"):
        server.join(who, room)
    own, others, elsewhere = server.say("bob", room), server.say("bob", room), server.say("alice", other)

    def redact(who: str, event: str, txn: str) -> tuple[int, Any]:
        return server.put(who, f"/rooms/{room}/redact/{event}/{txn}", {"reason": "bad"})

    assert errcode(redact("carol", own, "t")) == (403, "M_FORBIDDEN")
    assert errcode(redact("dave", own, "t")) == (403, "M_FORBIDDEN")
    assert errcode(redact("alice", elsewhere, "t")) == (400, "M_INVALID_PARAM")
    assert errcode(redact("alice", "$nothing", "t")) == (404, "M_NOT_FOUND")
    first = redact("bob", own, "t")
    assert first[0] == 200 and redact("bob", own, "t") == first
    assert redact("alice", others, "t")[0] == 200
    seen = server.ok("carol", "GET", f"/rooms/{room}/event/{own}")
    assert seen["content"] == {} and seen["unsigned"]["redacted_because"]["content"]["reason"] == "bad"
    # The reason goes when the redaction itself is redacted.
    assert redact("alice", first[1]["event_id"], "t2")[0] == 200
    assert "reason" not in server.ok("carol", "GET", f"/rooms/{room}/event/{first[1]['event_id']}")["content"]


@pytest.mark.parametrize("version", ["10", "11", "12"])
def test_clients_find_redacts_in_both_places_whatever_the_room_version(server: RoomServer, version: str) -> None:
    room = server.create("alice", room_version=version)
    event = server.say("alice", room)
    for content in ({}, {"reason": "bad"}):
        path = f"/rooms/{room}/redact/{event}/{len(content)}"
        redaction = server.ok("alice", "PUT", path, content)["event_id"]
        seen = server.ok("alice", "GET", f"/rooms/{room}/event/{redaction}")
        assert seen["redacts"] == event and seen["content"] == {**content, "redacts": event}
    because = server.ok("alice", "GET", f"/rooms/{room}/event/{event}")["unsigned"]["redacted_because"]
    assert because["redacts"] == because["content"]["redacts"] == event
    # Another type may have such a key of its own, which means nothing.
    other = server.ok("alice", "PUT", f"/rooms/{room}/send/org.example/o", {"redacts": event})["event_id"]
    assert "redacts" not in server.ok("alice", "GET", f"/rooms/{room}/event/{other}")


def test_f03_redacted_content_is_gone_everywhere_and_after_restart(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat", visibility="public")
    server.join("bob", room)
    event = server.say("bob", room, "planted secret")
    topic = server.state("alice", room, "m.room.topic", {"topic": "planted secret"})
    assert b"planted" in everything(server, room)
    for target in (event, topic):
        server.redact("alice", room, target)
    assert b"planted" not in everything(server, room)
    assert b"planted" not in everything(server.restart(), room)
    assert not any(b"planted" in value for table in server.store.tables[2:4] for value in table.values.values())


def test_c08_redacting_protected_state_keeps_the_room_working(server: RoomServer) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    state = {event["type"]: event for event in server.ok("alice", "GET", f"/rooms/{room}/state")}
    path = f"/rooms/{room}/redact/{state['m.room.create']['event_id']}/t"
    assert errcode(server.put("alice", path, {})) == (403, "M_FORBIDDEN")
    for type_ in ("m.room.power_levels", "m.room.join_rules", "m.room.history_visibility"):
        server.redact("alice", room, state[type_]["event_id"])
    own = server.ok("alice", "GET", f"/rooms/{room}/state/m.room.member/@alice:x", format="event")["event_id"]
    server.redact("alice", room, own)
    assert server.contents("alice", room, "m.room.join_rules") == {"join_rule": "public"}
    assert server.contents("alice", room, "m.room.power_levels")["users"] == {"@alice:x": 100}
    assert server.contents("alice", room, "m.room.member", "@alice:x") == {"membership": "join"}
    server.state("alice", room, "m.room.topic", {"topic": "still here"})
    server.join("carol", room)
    assert server.restart().rooms.get(room).version.id == "10"


def test_nothing_of_a_failed_turn_stays(server: RoomServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When something breaks between decision and append the room goes on from what was appended."""
    room = server.create("alice")

    def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("homeserver.rooms.send.remove_guests", broken)
    assert server.put("alice", f"/rooms/{room}/state/m.room.guest_access", {"guest_access": "forbidden"})[0] == 500
    assert server.contents("alice", room, "m.room.guest_access") == {"guest_access": "can_join"}
    server.say("alice", room)
    with server.log.snapshot() as snapshot:
        assert snapshot is not None
    assert [entry[1] for entry in server.log_of(room)][-2:] == ["m.room.guest_access", "m.room.message"]


@pytest_twisted.ensureDeferred
async def test_transactions_survive_a_restart_on_lmdb(tmp_path: Path) -> None:
    """The same over the real store, whose commits come from its own thread."""
    key = SigningKey.from_seed(b"s" * 32, "x", "ed25519:a")
    alice = Requester("@alice:x", "PHONE")

    async def send_once(room_id: str | None) -> tuple[str, str, int]:
        log = open_log(tmp_path, reactor)
        rooms = Rooms(log, "x", key, lambda: 1_700_000_000_000)
        aliases = Aliases(log)
        if room_id is None:
            room_id = await Create(rooms, aliases).create(Wish("@alice:x", "12", "private_chat"))
        event_id = await Send(rooms, aliases).message(alice, room_id, "m.room.message", TEXT, "t1")
        last = rooms.get(room_id).meta.last_seq
        await log.close()
        return room_id, event_id, last

    first = await send_once(None)
    assert await send_once(first[0]) == first


def send(server: RoomServer, room: str, content: object) -> tuple[int, Any]:
    return server.put("alice", f"/rooms/{room}/send/m.room.message/{len(server.log_of(room))}", content)


def everything(server: RoomServer, room: str) -> bytes:
    """All that readers can get of a room."""
    paths = ("messages?limit=100", "state", "members", "initialSync?limit=100", "state/m.room.topic")
    answers = [server.call("bob", "GET", f"/rooms/{room}/{path}")[1] for path in paths]
    answers += [server.get("bob", path)[1] for path in ("/initialSync", "/publicRooms", "/events?from=sx_0&timeout=0")]
    answers.append(server.get("carol", f"/_matrix/client/v1/room_summary/{room}")[1])
    answers.append(server.synced("bob"))
    return orjson.dumps(answers)
