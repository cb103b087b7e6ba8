"""Upload, query and claim against a real PostgreSQL."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults, succeed

from federation.rules.errors import MatrixError
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.publish import KeyPublisher
from homeserver.keys.remote import NoRemoteKeys, RemoteAnswer
from storage.tables.database import Database
from storage.tables.one_time_keys import Wanted

ALICE, BOB = "@alice:here", "@bob:here"
ALGORITHM = "signed_curve25519"


class Here:
    """Publisher and lookup of one server over one database, and who was told of new counts."""

    def __init__(self, database: Database) -> None:
        self.told: list[tuple[str, str]] = []
        self.keys = KeyCache(database)
        self.counts = KeyCountCache(database)
        self.publisher = KeyPublisher(database, self.keys, self.counts, self, self.tell)
        self.remote: Any = NoRemoteKeys()
        self.lookup = KeyLookup("here", database, self.keys, self.counts, self, self.tell)

    def tell(self, user_id: str, device_id: str) -> None:
        self.told.append((user_id, device_id))

    def drained(self) -> Deferred[None]:
        return succeed(None)

    async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
        return await self.remote.query(server, devices, timeout_ms)

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        return await self.remote.claim(server, wanted, timeout_ms)

    async def ask(self, devices: dict[str, list[str]], viewer: str = BOB) -> dict[str, Any]:
        return plain(await self.lookup.query(viewer, devices, 1000))

    async def take(self, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
        return plain(await self.lookup.claim(wanted, 1000))


def plain(answer: Any) -> Any:
    return orjson.loads(orjson.dumps(answer))


def device_keys(user_id: str, device_id: str, key: str = "abc") -> dict[str, Any]:
    return {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.megolm.v1.aes-sha2"],
        "keys": {f"ed25519:{device_id}": key},
        "signatures": {user_id: {f"ed25519:{device_id}": "sig"}},
        "org.example.more": [1, {"z": None}],
    }


def one_time(names: range, algorithm: str = ALGORITHM) -> dict[str, Any]:
    return {f"{algorithm}:K{n:04}": {"key": f"key{n}", "signatures": {}} for n in names}


@pytest.fixture
def here(database: Database) -> Here:
    return Here(database)


@ensureDeferred
async def test_keys_come_back_as_uploaded_with_the_device_name(
    here: Here, people: Callable[..., None], postgres: Callable[..., Any]
) -> None:
    people(alice=["PHONE", "DESK"], bob=[])
    keys = device_keys(ALICE, "PHONE")
    assert await here.publisher.upload(ALICE, "PHONE", {**keys, "unsigned": {"lies": 1}}, {}, {}) == {}
    answer = await here.ask({ALICE: [], BOB: [], "@nobody:here": []})
    assert answer["device_keys"] == {ALICE: {"PHONE": {**keys, "unsigned": {}}}, BOB: {}}
    assert answer["failures"] == {}
    postgres("UPDATE devices SET display_name = 'My phone' WHERE device_id = 'PHONE'")
    here.keys.changed(ALICE)
    answer = await here.ask({ALICE: ["PHONE", "UNKNOWN"]})
    assert answer["device_keys"][ALICE] == {"PHONE": {**keys, "unsigned": {"device_display_name": "My phone"}}}
    assert (await here.ask({ALICE: ["DESK"]}))["device_keys"] == {ALICE: {}}


@ensureDeferred
async def test_a_change_during_a_read_is_not_hidden_by_the_cache(here: Here, people: Callable[..., None]) -> None:
    people(alice=["PHONE"])
    reading = Deferred.fromCoroutine(here.ask({ALICE: []}))
    here.keys.changed(ALICE)
    await reading
    await here.publisher.upload(ALICE, "PHONE", device_keys(ALICE, "PHONE"), {}, {})
    assert (await here.ask({ALICE: []}))["device_keys"][ALICE].keys() == {"PHONE"}


@ensureDeferred
async def test_only_other_device_keys_are_a_change(
    here: Here, people: Callable[..., None], postgres: Callable[..., Any]
) -> None:
    people(alice=["PHONE"])
    for key, rows in ("one", 1), ("one", 1), ("two", 2):
        await here.publisher.upload(ALICE, "PHONE", device_keys(ALICE, "PHONE", key), {}, {})
        assert postgres("SELECT count(*) FROM outbox") == [(rows,)]


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"algorithms": None}, "M_BAD_JSON"),
        ({"keys": {"ed25519:PHONE": 1}}, "M_BAD_JSON"),
        ({"signatures": []}, "M_BAD_JSON"),
        ({"device_id": "OTHER"}, "M_INVALID_PARAM"),
        ({"user_id": BOB}, "M_INVALID_PARAM"),
    ],
)
@ensureDeferred
async def test_bad_device_keys_are_refused(
    here: Here, people: Callable[..., None], changes: dict[str, Any], errcode: str
) -> None:
    people(alice=["PHONE"])
    with pytest.raises(MatrixError) as refused:
        await here.publisher.upload(ALICE, "PHONE", device_keys(ALICE, "PHONE") | changes, one_time(range(1)), {})
    assert (refused.value.status, refused.value.errcode) == (400, errcode)
    assert await here.publisher.upload(ALICE, "PHONE", None, {}, {}) == {}


@ensureDeferred
async def test_one_time_keys_are_given_in_upload_order_then_the_fallback_key(
    here: Here, people: Callable[..., None]
) -> None:
    people(alice=["PHONE"])
    # Later uploads have names that sort first.
    for names in range(4, 6), range(2, 4), range(0, 2):
        await here.publisher.upload(ALICE, "PHONE", None, one_time(names), {})
    fallback = {f"{ALGORITHM}:FALL": {"key": "f", "fallback": True, "signatures": {}}}
    counts = await here.publisher.upload(ALICE, "PHONE", None, {}, fallback)
    assert counts == {ALGORITHM: 6}
    assert (await here.counts.get(ALICE, "PHONE")).unused_fallback == [ALGORITHM]
    order = []
    for _ in range(6):
        answer = await here.take({ALICE: {"PHONE": ALGORITHM, "OTHER": ALGORITHM}, BOB: {"X": ALGORITHM}})
        assert answer["one_time_keys"].keys() == {ALICE} and answer["one_time_keys"][ALICE].keys() == {"PHONE"}
        order += answer["one_time_keys"][ALICE]["PHONE"]
    numbers = [int(name[-4:]) // 2 for name in order]
    assert numbers == [2, 2, 1, 1, 0, 0] and len(set(order)) == 6
    assert here.counts.cached(ALICE, "PHONE") is None
    assert await here.counts.get(ALICE, "PHONE") == ({}, [ALGORITHM])
    for _ in range(2):
        answer = await here.take({ALICE: {"PHONE": ALGORITHM}})
        assert answer["one_time_keys"] == {ALICE: {"PHONE": fallback}}
        assert await here.counts.get(ALICE, "PHONE") == ({}, [])
    # The same key again stays used, another one is new.
    await here.publisher.upload(ALICE, "PHONE", None, {}, fallback)
    assert (await here.counts.get(ALICE, "PHONE")).unused_fallback == []
    await here.publisher.upload(ALICE, "PHONE", None, {}, {f"{ALGORITHM}:NEXT": "plain"})
    assert (await here.counts.get(ALICE, "PHONE")).unused_fallback == [ALGORITHM]


@ensureDeferred
async def test_160_claims_by_four_claimers_each_get_their_own_key(here: Here, people: Callable[..., None]) -> None:
    people(alice=["PHONE"])
    for start in range(0, 160, 20):
        await here.publisher.upload(ALICE, "PHONE", None, one_time(range(start, start + 20)), {})

    async def claimer() -> list[str]:
        taken = []
        for _ in range(40):
            answer = await here.take({ALICE: {"PHONE": ALGORITHM}})
            taken += answer["one_time_keys"][ALICE]["PHONE"]
        return taken

    rounds = await gatherResults([Deferred.fromCoroutine(claimer()) for _ in range(4)])
    names = [name for taken in rounds for name in taken]
    assert len(names) == 160 and len(set(names)) == 160
    assert (await here.take({ALICE: {"PHONE": ALGORITHM}}))["one_time_keys"] == {}
    assert len(here.told) == 8 + 160


@ensureDeferred
async def test_a_key_name_stands_for_one_key(here: Here, people: Callable[..., None]) -> None:
    people(alice=["PHONE"])
    upload = here.publisher.upload
    key = {f"{ALGORITHM}:A": {"key": "a", "signatures": {ALICE: {"x": "1"}}}}
    assert await upload(ALICE, "PHONE", None, key, {}) == {ALGORITHM: 1}
    # Sent again, perhaps signed anew: the answer was lost.
    again = {f"{ALGORITHM}:A": {"key": "a", "signatures": {ALICE: {"x": "2"}}}}
    assert await upload(ALICE, "PHONE", None, again | {"plain:A": "a"}, {}) == {ALGORITHM: 1, "plain": 1}
    for other in ({f"{ALGORITHM}:A": {"key": "b"}}, {f"{ALGORITHM}:A": "a"}):
        with pytest.raises(MatrixError) as refused:
            await upload(ALICE, "PHONE", device_keys(ALICE, "PHONE"), other | {"plain:B": "b"}, {})
        assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    # All or nothing: neither the new key nor the device keys were kept.
    assert await upload(ALICE, "PHONE", None, {}, {}) == {ALGORITHM: 1, "plain": 1}
    assert (await here.ask({ALICE: []}))["device_keys"] == {ALICE: {}}


@pytest.mark.parametrize(
    ("one_time_keys", "fallback_keys"),
    [
        ({"nocolon": "x"}, {}),
        ({":id": "x"}, {}),
        ({"a:": "x"}, {}),
        ({"a:" + "k" * 256: "x"}, {}),
        ({"a:k": 5}, {}),
        ({"a:k": {"nokey": "x"}}, {}),
        ({"a:k": "x" * 9000}, {}),
        (one_time(range(1001)), {}),
        ({}, {"a:1": "x", "a:2": "y"}),
    ],
)
@ensureDeferred
async def test_bad_one_time_keys_are_refused(
    here: Here, people: Callable[..., None], one_time_keys: dict[str, Any], fallback_keys: dict[str, Any]
) -> None:
    people(alice=["PHONE"])
    with pytest.raises(MatrixError) as refused:
        await here.publisher.upload(ALICE, "PHONE", None, one_time_keys, fallback_keys)
    assert refused.value.status in (400, 413)


@ensureDeferred
async def test_a_deleted_device_takes_its_keys_along_and_publishes_no_more(
    here: Here, people: Callable[..., None], postgres: Callable[..., Any]
) -> None:
    people(alice=["PHONE"])
    await here.publisher.upload(ALICE, "PHONE", device_keys(ALICE, "PHONE"), one_time(range(3)), {"a:f": "x"})
    postgres("DELETE FROM devices")
    for table in "device_keys", "one_time_keys", "fallback_keys":
        assert postgres(f"SELECT count(*) FROM {table}") == [(0,)]
    with pytest.raises(MatrixError) as refused:
        await here.publisher.upload(ALICE, "PHONE", None, one_time(range(3)), {})
    assert refused.value.errcode == "M_UNKNOWN_TOKEN"


@ensureDeferred
async def test_servers_that_cannot_be_reached_are_named(here: Here, people: Callable[..., None]) -> None:
    people(alice=["PHONE"])
    answer = await here.ask({ALICE: [], "@carol:far": [], "nonsense": []})
    assert answer["device_keys"] == {ALICE: {}}
    assert answer["failures"].keys() == {"far"}
    answer = await here.take({"@carol:far": {"X": ALGORITHM}})
    assert answer["one_time_keys"] == {} and answer["failures"].keys() == {"far"}


@ensureDeferred
async def test_answers_of_other_servers_are_merged(here: Here, people: Callable[..., None]) -> None:
    people(alice=["PHONE"])

    class Far:
        async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
            assert (server, devices) == ("far", {"@carol:far": ["X"]})
            return RemoteAnswer({"device_keys": {"@carol:far": {"X": {}}}, "master_keys": {"@carol:far": {}}}, None)

    here.remote = Far()
    answer = await here.ask({ALICE: [], "@carol:far": ["X"]})
    assert answer["device_keys"] == {ALICE: {}, "@carol:far": {"X": {}}}
    assert answer["master_keys"] == {"@carol:far": {}} and answer["failures"] == {}


@ensureDeferred
async def test_a_device_keeps_a_bounded_number_of_one_time_keys(
    here: Here, people: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    people(alice=["PHONE"])
    monkeypatch.setattr("homeserver.keys.publish.MAX_ONE_TIME_KEYS", 4)
    await here.publisher.upload(ALICE, "PHONE", None, one_time(range(4)), {})
    await here.publisher.upload(ALICE, "PHONE", None, one_time(range(4)), {})  # the same ones again are no more
    with pytest.raises(MatrixError) as error:
        await here.publisher.upload(ALICE, "PHONE", None, one_time(range(4, 5)), {})
    assert error.value.status == 400
    assert await here.publisher.upload(ALICE, "PHONE", None, {}, {}) == {ALGORITHM: 4}
