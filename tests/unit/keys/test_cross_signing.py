"""Cross-signing keys and signatures, with real Ed25519 keys on a real PostgreSQL."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from nacl.signing import SigningKey
from pytest_twisted import ensureDeferred
from signedjson.sign import sign_json
from twisted.internet.defer import Deferred, succeed
from unpaddedbase64 import encode_base64

from federation.rules.errors import MatrixError
from homeserver.keys.cross_signing import CrossSigning
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.publish import KeyPublisher
from homeserver.keys.remote import NoRemoteKeys, RemoteAnswer
from storage.tables.database import Database
from storage.tables.one_time_keys import Wanted

ALICE, BOB = "@alice:here", "@bob:here"


class Key:
    """An Ed25519 key pair, made from one number."""

    def __init__(self, number: int, name: str | None = None) -> None:
        self._key: Any = SigningKey(bytes([number] * 32))
        self.public = encode_base64(bytes(self._key.verify_key))
        self.name = name or self.public
        self._key.alg, self._key.version = "ed25519", self.name

    def sign(self, user_id: str, value: dict[str, Any]) -> dict[str, Any]:
        return sign_json(orjson.loads(orjson.dumps(value)), user_id, self._key)

    def published(self, user_id: str, usage: str) -> dict[str, Any]:
        return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{self.public}": self.public}}


class Here:
    def __init__(self, database: Database) -> None:
        keys, counts = KeyCache(database), KeyCountCache(database)
        self.remote: Any = NoRemoteKeys()
        self.publisher = KeyPublisher(database, keys, counts, self, lambda user_id, device_id: None)
        self.lookup = KeyLookup("here", database, keys, counts, self, lambda user_id, device_id: None)
        self.cross_signing = CrossSigning(database, keys, self, self.lookup.remote_masters)

    async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
        return await self.remote.query(server, devices, timeout_ms)

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        raise NotImplementedError

    def drained(self) -> Deferred[None]:
        return succeed(None)

    async def upload(self, user_id: str, **keys: dict[str, Any]) -> None:
        needs = await self.cross_signing.needs_authentication(user_id, keys)
        await self.cross_signing.upload_keys(user_id, keys, authenticated=needs)

    async def sees(self, viewer: str, user_id: str) -> dict[str, Any]:
        answer = await self.lookup.query(viewer, {user_id: []}, 0)
        return orjson.loads(orjson.dumps(answer))

    async def device(self, user_id: str, key: Key) -> dict[str, Any]:
        value = {
            "user_id": user_id,
            "device_id": key.name,
            "algorithms": [],
            "keys": {f"ed25519:{key.name}": key.public},
            "signatures": {},
        }
        await self.publisher.upload(user_id, key.name, value, {}, {})
        return value


@pytest.fixture
def here(database: Database, people: Callable[..., None]) -> Here:
    people(alice=["PHONE"], bob=["DESK"])
    return Here(database)


MASTER, SELF, USER, OTHER = Key(1), Key(2), Key(3), Key(4)
PHONE = Key(5, "PHONE")


def keys_of(user_id: str, master: Key = MASTER) -> dict[str, dict[str, Any]]:
    return {
        "master": master.published(user_id, "master"),
        "self_signing": master.sign(user_id, SELF.published(user_id, "self_signing")),
        "user_signing": master.sign(user_id, USER.published(user_id, "user_signing")),
    }


@ensureDeferred
async def test_the_first_keys_and_the_same_keys_need_no_authentication(here: Here) -> None:
    keys = keys_of(ALICE)
    needs = here.cross_signing.needs_authentication
    assert not await needs(ALICE, keys)
    await here.upload(ALICE, **keys)
    assert not await needs(ALICE, keys)
    assert not await needs(ALICE, {"master": keys["master"]})
    assert await needs(ALICE, keys_of(ALICE, OTHER))
    assert await needs(ALICE, {"user_signing": MASTER.sign(ALICE, OTHER.published(ALICE, "user_signing"))})
    answer = await here.sees(ALICE, ALICE)
    assert answer["master_keys"] == {ALICE: keys["master"]}
    assert answer["self_signing_keys"] == {ALICE: keys["self_signing"]}
    assert answer["user_signing_keys"] == {ALICE: keys["user_signing"]}
    assert "user_signing_keys" not in await here.sees(BOB, ALICE)


@ensureDeferred
async def test_two_first_uploads_at_once_do_not_replace_each_other(here: Here) -> None:
    await here.cross_signing.upload_keys(ALICE, keys_of(ALICE), authenticated=False)
    with pytest.raises(MatrixError) as refused:
        await here.cross_signing.upload_keys(ALICE, keys_of(ALICE, OTHER), authenticated=False)
    assert refused.value.status == 403
    assert (await here.sees(BOB, ALICE))["master_keys"] == {ALICE: MASTER.published(ALICE, "master")}


@ensureDeferred
async def test_a_new_master_key_removes_what_the_old_one_vouched_for(here: Here) -> None:
    await here.upload(ALICE, **keys_of(ALICE))
    await here.upload(ALICE, master=OTHER.published(ALICE, "master"))
    answer = await here.sees(ALICE, ALICE)
    assert answer["master_keys"] == {ALICE: OTHER.published(ALICE, "master")}
    assert "self_signing_keys" not in answer and "user_signing_keys" not in answer


@pytest.mark.parametrize(
    ("keys", "status", "errcode"),
    [
        ({"self_signing": SELF.published(ALICE, "self_signing")}, 400, "M_MISSING_PARAM"),
        (keys_of(ALICE) | {"self_signing": SELF.published(ALICE, "self_signing")}, 400, "M_INVALID_SIGNATURE"),
        (
            keys_of(ALICE) | {"self_signing": OTHER.sign(ALICE, SELF.published(ALICE, "self_signing"))},
            400,
            "M_INVALID_SIGNATURE",
        ),
        ({"master": keys_of(BOB)["master"]}, 400, "M_INVALID_PARAM"),
        ({"master": MASTER.published(ALICE, "self_signing")}, 400, "M_INVALID_PARAM"),
        ({"master": MASTER.published(ALICE, "master") | {"keys": {}}}, 400, "M_INVALID_PARAM"),
        ({"master": MASTER.published(ALICE, "master") | {"keys": {"ed25519:x": "x"}}}, 400, "M_INVALID_PARAM"),
        ({"master": {"user_id": ALICE}}, 400, "M_BAD_JSON"),
    ],
)
@ensureDeferred
async def test_bad_keys_are_refused_and_nothing_is_kept(
    here: Here, keys: dict[str, dict[str, Any]], status: int, errcode: str
) -> None:
    with pytest.raises(MatrixError) as refused:
        await here.upload(ALICE, **keys)
    assert (refused.value.status, refused.value.errcode) == (status, errcode)
    assert "master_keys" not in await here.sees(ALICE, ALICE)


@ensureDeferred
async def test_f08_a_wrong_subkey_signature_is_refused(here: Here) -> None:
    keys = keys_of(ALICE)
    keys["self_signing"]["keys"] = {f"ed25519:{OTHER.public}": OTHER.public}
    with pytest.raises(MatrixError) as refused:
        await here.upload(ALICE, **keys)
    assert refused.value.errcode == "M_INVALID_SIGNATURE"


@ensureDeferred
async def test_a_key_may_not_be_named_like_a_device(here: Here, people: Callable[..., None], postgres: Any) -> None:
    postgres("INSERT INTO devices (user_id, device_id, created_ts) VALUES (%s, %s, 0)", ALICE, MASTER.public)
    with pytest.raises(MatrixError) as refused:
        await here.upload(ALICE, **keys_of(ALICE))
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


@ensureDeferred
async def test_signatures_reach_those_who_may_see_them(here: Here, postgres: Any) -> None:
    device = await here.device(ALICE, PHONE)
    await here.upload(ALICE, **keys_of(ALICE))
    await here.upload(BOB, **keys_of(BOB, OTHER))
    postgres("DELETE FROM outbox")
    bob_master = OTHER.published(BOB, "master")
    failures = await here.cross_signing.upload_signatures(
        ALICE,
        {
            ALICE: {
                "PHONE": SELF.sign(ALICE, device),
                MASTER.public: PHONE.sign(ALICE, MASTER.published(ALICE, "master")),
            },
            BOB: {OTHER.public: USER.sign(ALICE, bob_master)},
        },
    )
    assert failures == {}
    for viewer in ALICE, BOB:
        answer = await here.sees(viewer, ALICE)
        assert answer["device_keys"][ALICE]["PHONE"]["signatures"][ALICE].keys() == {f"ed25519:{SELF.public}"}
        assert answer["master_keys"][ALICE]["signatures"][ALICE].keys() == {"ed25519:PHONE"}
    assert (await here.sees(ALICE, BOB))["master_keys"][BOB] == USER.sign(ALICE, bob_master)
    assert (await here.sees(BOB, BOB))["master_keys"][BOB] == bob_master
    told = sorted((orjson.loads(text) for (text,) in postgres("SELECT payload FROM outbox")), key=str)
    assert told == [{"user_id": ALICE}, {"user_id": BOB, "only_for": ALICE}]
    # Other device keys: what was said of the old ones does not count for them.
    await here.publisher.upload(ALICE, "PHONE", device | {"algorithms": ["x"]}, {}, {})
    assert (await here.sees(BOB, ALICE))["device_keys"][ALICE]["PHONE"]["signatures"] == {}


@ensureDeferred
async def test_f08_each_wrong_signature_fails_alone_and_is_not_kept(here: Here, postgres: Any) -> None:
    device = await here.device(ALICE, PHONE)
    await here.upload(ALICE, **keys_of(ALICE))
    await here.upload(BOB, **keys_of(BOB, OTHER))
    bad = SELF.sign(ALICE, device)
    wrong = {"ed25519:" + SELF.public: PHONE.sign(ALICE, device)["signatures"][ALICE]["ed25519:PHONE"]}
    bad["signatures"] = {ALICE: wrong}
    upload = {
        ALICE: {
            "PHONE": bad,
            "TABLET": SELF.sign(ALICE, device),
            MASTER.public: PHONE.sign(ALICE, MASTER.published(ALICE, "master")),
        },
        # A self-signing key has no say about other people, nor has another key than the published one.
        BOB: {OTHER.public: SELF.sign(ALICE, OTHER.published(BOB, "master"))},
        "@nobody:here": {"X": SELF.sign(ALICE, device)},
    }
    failures = await here.cross_signing.upload_signatures(ALICE, upload)
    found = {(user_id, key_id): body["errcode"] for user_id, of in failures.items() for key_id, body in of.items()}
    assert found == {
        (ALICE, "PHONE"): "M_INVALID_SIGNATURE",
        (ALICE, "TABLET"): "M_NOT_FOUND",
        (BOB, OTHER.public): "M_INVALID_SIGNATURE",
        ("@nobody:here", "X"): "M_NOT_FOUND",
    }
    assert postgres("SELECT target_key, signer_key FROM signatures") == [(MASTER.public, "ed25519:PHONE")]
    altered = SELF.sign(ALICE, device | {"algorithms": ["evil"]})
    failures = await here.cross_signing.upload_signatures(ALICE, {ALICE: {"PHONE": altered}})
    assert failures[ALICE]["PHONE"]["errcode"] == "M_INVALID_PARAM"
    # Somebody else's word on alice's device is not taken at all.
    failures = await here.cross_signing.upload_signatures(BOB, {ALICE: {"PHONE": SELF.sign(BOB, device)}})
    assert failures[ALICE]["PHONE"]["errcode"] == "M_INVALID_SIGNATURE"
