"""The endpoints around sync: what they refuse."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred

from federation.rules.errors import MatrixError
from homeserver.client.filter import Filter
from homeserver.client.presence import PresenceStatus
from homeserver.client.read_markers import ReadMarkers
from homeserver.client.receipts import ReadReceipts
from homeserver.client.sync import Sync
from homeserver.client.typing import TypingNotifications
from homeserver.sync.filter_store import MAX_FILTERS, FilterStore
from homeserver.web.call import Call
from storage.tables.database import Database
from tests.fakes.world import World, bodies


@pytest.fixture
def world() -> World:
    return World()


def call(world: World, user: str, params: dict[str, str], body: object = None, query: str = "") -> Call:
    made = Call("PUT", "/x" + query, {}, b"" if body is None else json.dumps(body).encode())
    made.params, made.sender = params, world.who(user)
    return made


def refusal(world: World, handler: Callable[[Call], Any], made: Call) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refused:
        result = handler(made)
        if hasattr(result, "__await__"):
            world.run(result)
    return refused.value.status, refused.value.errcode


def test_f07_typing_in_a_room_that_one_is_not_in(world: World) -> None:
    room = world.room("a")
    endpoint = TypingNotifications(world.sync.typing, world.memberships, world.sync.presence)
    params = {"roomId": room, "userId": "@b:x"}
    assert refusal(world, endpoint.set_typing, call(world, "b", params, {"typing": True})) == (403, "M_FORBIDDEN")
    other = call(world, "b", {"roomId": room, "userId": "@a:x"}, {"typing": True})
    assert refusal(world, endpoint.set_typing, other) == (403, "M_FORBIDDEN")
    assert world.sync.typing.users(room) == []
    assert endpoint.set_typing(call(world, "a", {"roomId": room, "userId": "@a:x"}, {"typing": True})) == {}
    assert world.sync.typing.users(room) == ["@a:x"]


@pytest.mark.parametrize("body", [{}, {"typing": "yes"}, {"typing": 1}, {"typing": True, "timeout": True}])
def test_typing_with_wrong_types(world: World, body: object) -> None:
    room = world.room("a")
    endpoint = TypingNotifications(world.sync.typing, world.memberships, world.sync.presence)
    assert refusal(world, endpoint.set_typing, call(world, "a", {"roomId": room, "userId": "@a:x"}, body))[0] == 400


def test_f07_receipts_in_a_room_that_one_is_not_in(world: World) -> None:
    room = world.room("a")
    event_id = world.say("a", room)
    endpoint = ReadReceipts(world.sync.receipts, world.memberships, world.sync.presence)
    params = {"roomId": room, "receiptType": "m.read", "eventId": event_id}
    assert refusal(world, endpoint.post_receipt, call(world, "b", params)) == (403, "M_FORBIDDEN")
    markers = ReadMarkers(world.sync.receipts, world.memberships, world.sync.presence)
    body = {"m.read": event_id}
    assert refusal(world, markers.set_read_markers, call(world, "b", {"roomId": room}, body)) == (403, "M_FORBIDDEN")
    assert "ephemeral" not in json.dumps(world.synced("a").get("presence", {}))
    assert world.synced("a")["rooms"]["join"][room]["ephemeral"]["events"] == []


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("m.unknown", {}),
        ("m.read", {"thread_id": ""}),
        ("m.read", {"thread_id": 5}),
        ("m.read", {"thread_id": None}),
        ("m.fully_read", {"thread_id": "main"}),
    ],
)
def test_receipts_of_a_wrong_shape(world: World, type_: str, body: object) -> None:
    room = world.room("a")
    params = {"roomId": room, "receiptType": type_, "eventId": world.say("a", room)}
    endpoint = ReadReceipts(world.sync.receipts, world.memberships, world.sync.presence)
    assert refusal(world, endpoint.post_receipt, call(world, "a", params, body)) == (400, "M_INVALID_PARAM")


def test_read_markers_set_all_three_at_once(world: World) -> None:
    room = world.room("a")
    event_id = world.say("a", room)
    endpoint = ReadMarkers(world.sync.receipts, world.memberships, world.sync.presence)
    body = {"m.fully_read": event_id, "m.read": event_id, "m.read.private": event_id}
    assert world.run(endpoint.set_read_markers(call(world, "a", {"roomId": room}, body))) == {}
    section = world.synced("a")["rooms"]["join"][room]
    assert set(section["ephemeral"]["events"][0]["content"][event_id]) == {"m.read", "m.read.private"}
    assert section["account_data"]["events"][0]["type"] == "m.fully_read"


def test_presence_is_for_oneself_and_for_people_in_sight(world: World) -> None:
    world.room("a", "b")
    endpoint = PresenceStatus(world.sync.presence, world.sync.presence_memory, world.memberships)
    mine = {"userId": "@a:x"}
    body = {"presence": "unavailable", "status_msg": "tea"}
    assert world.run(endpoint.set_presence(call(world, "a", mine, body))) == {}
    seen = endpoint.get_presence(call(world, "b", mine))
    assert (seen["presence"], seen["status_msg"]) == ("unavailable", "tea")
    assert refusal(world, endpoint.set_presence, call(world, "b", mine, body)) == (403, "M_FORBIDDEN")
    assert refusal(world, endpoint.get_presence, call(world, "c", mine)) == (403, "M_FORBIDDEN")
    assert refusal(world, endpoint.set_presence, call(world, "a", mine, {"presence": "asleep"}))[0] == 400
    long = {"presence": "online", "status_msg": "x" * 5000}
    assert refusal(world, endpoint.set_presence, call(world, "a", mine, long))[0] == 400


@pytest.mark.parametrize(
    "query",
    [
        "?since=nonsense",
        "?timeout=-1",
        "?timeout=x",
        "?full_state=maybe",
        "?set_presence=asleep",
        "?filter=%7B%22room%22:5%7D",
        "?filter=%7Bnojson",
    ],
)
def test_sync_refuses_bad_parameters(world: World, query: str) -> None:
    filters = FilterStore(None)  # type: ignore[arg-type]
    endpoint = Sync(world.log, world.sync.longpoll, filters, world.sync.presence, world.now_ms)
    assert refusal(world, endpoint.sync, call(world, "a", {}, query=query))[0] == 400


def test_sync_clamps_an_endless_time_out(world: World) -> None:
    filters = FilterStore(None)  # type: ignore[arg-type]
    endpoint = Sync(world.log, world.sync.longpoll, filters, world.sync.presence, world.now_ms)
    answer = endpoint.sync(call(world, "a", {}, query=f"?timeout={10**18}"))
    assert isinstance(answer, Deferred)
    assert json.loads(world.run(answer).encoded())["next_batch"]


def test_a_query_that_was_read_before_asks_for_the_same_with_another_token(world: World) -> None:
    filters = FilterStore(None)  # type: ignore[arg-type]
    endpoint = Sync(world.log, world.sync.longpoll, filters, world.sync.presence, world.now_ms)
    room = world.room("a")

    def synced(query: str) -> dict[str, Any]:
        return json.loads(world.run(maybeDeferred(endpoint.sync, call(world, "a", {}, query=query))).encoded())

    tokens = [synced("")["next_batch"]]
    for text in ("one", "two", "three"):
        world.say("a", room, text)
        tokens.append(synced("")["next_batch"])
    limit = "%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:1%7D%7D%7D"
    for query in ("?since={}&timeout=0", "?timeout=0&since={}", f"?filter={limit}&since={{}}&use_state_after=true"):
        for place, expected in enumerate((["one", "two", "three"], ["two", "three"], ["three"])):
            entry = synced(query.format(tokens[place]))["rooms"]["join"][room]
            wanted = expected[-1:] if "limit" in query else expected
            assert bodies(entry["timeline"]["events"]) == wanted
            assert ("state_after" in entry) == ("state_after" in query)
    with pytest.raises(MatrixError):
        endpoint.sync(call(world, "a", {}, query="?timeout=0&since=nonsense"))


@pytest_twisted.ensureDeferred
async def test_filters_are_stored_once_and_read_back(world: World, database: Database) -> None:
    add = "INSERT INTO users (user_id, created_ts) VALUES ('@a:x', 0)"
    await database.execute(add)
    store = FilterStore(database)
    endpoint = Filter(store)
    body = {"room": {"timeline": {"limit": 3}}, "event_format": "client"}
    made = (await endpoint.define_filter(call(world, "a", {"userId": "@a:x"}, body)))["filter_id"]
    assert (await endpoint.define_filter(call(world, "a", {"userId": "@a:x"}, body)))["filter_id"] == made
    assert await endpoint.get_filter(call(world, "a", {"userId": "@a:x", "filterId": made})) == body
    # A store that has forgotten (or a restarted server) reads it from the database.
    assert (await FilterStore(database).get("@a:x", made)).timeline_limit == 3
    for params, user, status in (
        ({"userId": "@a:x", "filterId": made}, "b", 403),
        ({"userId": "@a:x", "filterId": "nothing"}, "a", 404),
        ({"userId": "@a:x", "filterId": "nul\0"}, "a", 404),
    ):
        with pytest.raises(MatrixError) as refused:
            await endpoint.get_filter(call(world, user, params))
        assert refused.value.status == status
    with pytest.raises(MatrixError) as refused:
        await store.get("@a:x", "nothing")
    assert refused.value.status == 400


@pytest_twisted.ensureDeferred
async def test_a_user_may_store_so_many_filters(database: Database) -> None:
    await database.execute("INSERT INTO users (user_id, created_ts) VALUES ('@a:x', 0)")
    rows = "INSERT INTO filters SELECT '@a:x', 'old' || n, '{}' FROM generate_series(1, %s) n"
    await database.execute(rows, (MAX_FILTERS,))
    with pytest.raises(MatrixError) as refused:
        await FilterStore(database).store("@a:x", {"presence": {"limit": 1}})
    assert refused.value.status == 400
