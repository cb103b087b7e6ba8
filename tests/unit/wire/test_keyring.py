"""federation.wire.keyring, request_auth and the key endpoints, with servers that lie about keys."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet import reactor

from federation.inbound.keys_query import KeysQuery
from federation.inbound.keys_server import KeysServer
from federation.inbound.operation import PeerRequest
from federation.rules.errors import MatrixError
from federation.rules.event import Event, build_event
from federation.rules.hashes import encode_base64
from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.signing import (
    POLICY_KEY_ID,
    KeyUnavailable,
    SignatureError,
    SigningKey,
    sign_json,
    verify_signed_json,
    with_signature,
)
from federation.wire import xmatrix
from federation.wire.http import HttpRequest
from federation.wire.key_waits import FREE_FETCHES, GONE_MS
from federation.wire.keyring import KeyRing, Notary
from federation.wire.own_keys import OwnKeys
from federation.wire.request_auth import RequestAuth
from storage.tables.database import Database
from storage.tables.server_keys import MAX_ANSWERS
from tests.fakes.wire import World, answer, key_document

DAY = 86_400_000
A = SigningKey.from_seed(b"a" * 32, "a.example")
B = SigningKey.from_seed(b"b" * 32, "a.example")
N = SigningKey.from_seed(b"N" * 32, "notary.example")


class Ring:
    """A key ring in a world, over a real database."""

    def __init__(self, database: Database) -> None:
        self.world = World()
        self.database = database
        self.own = OwnKeys("here.example", [self.world.key], {"ed25519:old": ("A" * 43, 5)}, DAY, self.now)
        self.ring = self.made()

    def now(self) -> int:
        return self.world.wall()

    def steady(self) -> int:
        return self.world.now

    def made(self) -> KeyRing:
        notaries = [Notary("notary.example", {N.key_id: N.verify_key})]
        return KeyRing(self.own, self.world.client, self.database, notaries, self.now, self.steady)

    def serve(self, host: str, document: Callable[[], Any]) -> None:
        self.world.http.on(host, 8448, lambda sent: answer(document()))

    def notary(self, documents: Callable[[Any], list[Any]]) -> None:
        def serve(sent: HttpRequest) -> Any:
            assert sent.body is not None
            signed = [sign_json(one, "notary.example", N) for one in documents(orjson.loads(sent.body))]
            return answer({"server_keys": signed})

        self.world.http.on("notary.example", 8448, serve)

    def fetches(self, host: str) -> int:
        return sum(sent.target == (host, 8448) for sent in self.world.http.sent)


def signed(version: str, ts: int, key: SigningKey = A) -> Event:
    """An event of a.example."""
    return build_event(
        ROOM_VERSIONS[version], room_id="!r:a.example", sender="@u:a.example", type="m.x", content={}, depth=1,
        prev_event_ids=[], auth_event_ids=[], origin_server_ts=ts, server_name="a.example", signing_key=key,
    )  # fmt: skip


@pytest.fixture
def rings(database_parameters: dict[str, object]) -> Any:
    database = Database(reactor, database_parameters)
    yield Ring(database)
    pytest_twisted.blockon(database.close())


def document(ring: Ring, *keys: SigningKey, name: str = "a.example", until: int | None = None, **rest: Any) -> Any:
    return key_document(name, *keys, until=ring.now() + DAY if until is None else until, **rest)


@pytest_twisted.ensureDeferred
async def test_fetched_once_kept_and_there_after_a_restart(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A))
    for _ in range(2):
        assert await rings.ring.keys_for("a.example", [A.key_id], rings.now()) == {A.key_id: A.verify_key}
    assert rings.fetches("a.example") == 1
    rings.ring = rings.made()
    rings.world.http.servers.clear()
    assert A.key_id in await rings.ring.keys_for("a.example", [A.key_id], rings.now())
    rings.world.now += 2 * DAY
    assert await rings.ring.keys_for("a.example", [A.key_id], rings.now()) == {}
    assert A.key_id in await rings.ring.keys_for("a.example", [A.key_id], 0)


@pytest_twisted.ensureDeferred
async def test_unreachable_servers_are_not_asked_again_at_once(rings: Ring) -> None:
    for _ in range(5):
        assert await rings.ring.keys_for("a.example", [A.key_id]) == {}
    first = rings.fetches("a.example")
    rings.world.now += 11_000
    await rings.ring.keys_for("a.example", [A.key_id])
    assert (first, rings.fetches("a.example")) == (1, 2)


@pytest_twisted.ensureDeferred
async def test_i15_a_wall_clock_that_is_set_changes_no_wait_for_keys(rings: Ring) -> None:
    rings.world.wall_error_ms = 11 * 3_600_000
    assert await rings.ring.keys_for("a.example", [A.key_id]) == {}
    rings.world.wall_error_ms = 0
    rings.world.now += 11_000
    rings.serve("a.example", lambda: document(rings, A))
    assert await rings.ring.keys_for("a.example", [A.key_id]) == {A.key_id: A.verify_key}


@pytest_twisted.ensureDeferred
async def test_a_signature_of_who_does_not_answer_is_not_wrong_for_a_while(rings: Ring) -> None:
    event = signed("10", rings.now())
    (problem,) = await rings.ring.check_events([event])
    assert isinstance(problem, KeyUnavailable)
    rings.world.now += GONE_MS
    (problem,) = await rings.ring.check_events([event])
    assert type(problem) is SignatureError, "a server that has been silent for long is not waited for"
    rings.serve("a.example", lambda: document(rings, B))
    rings.world.now += 3_600_000
    (problem,) = await rings.ring.check_events([event])
    assert type(problem) is SignatureError, "it is there, and has no such key"


@pytest_twisted.ensureDeferred
async def test_a_server_that_answers_without_news_is_asked_a_few_times_before_there_are_waits(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A))
    for _ in range(3 * FREE_FETCHES):
        assert await rings.ring.answers_of("a.example", rings.now() + 365 * DAY)
    assert rings.fetches("a.example") == 1 + FREE_FETCHES
    rings.world.now += 60_000
    assert await rings.ring.answers_of("a.example", rings.now() + 365 * DAY)
    assert rings.fetches("a.example") == 2 + FREE_FETCHES


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_no_silence(rings: Ring) -> None:
    rings.world.http.on("a.example", 8448, lambda _: answer({"errcode": "M_UNKNOWN", "error": "starting"}, 502))
    assert await rings.ring.keys_for("a.example", [A.key_id]) == {}
    rings.serve("a.example", lambda: document(rings, A))
    assert await rings.ring.keys_for("a.example", [A.key_id]) == {A.key_id: A.verify_key}


@pytest_twisted.ensureDeferred
async def test_a_notary_forgets_no_key_that_its_server_dropped(rings: Ring) -> None:
    async def told(*key_ids: str) -> list[set[str]]:
        answers = await rings.ring.answers_of("a.example", rings.now() + 365 * DAY, key_ids)
        return [set(one["verify_keys"]) for one in answers]

    rings.serve("a.example", lambda: document(rings, A))
    assert await told() == [{A.key_id}]
    rings.world.now += 1
    rings.serve("a.example", lambda: document(rings, B))
    assert await told() == [{B.key_id}, {A.key_id}]
    assert await told(A.key_id) == [{A.key_id}] and await told(B.key_id) == [{B.key_id}]
    assert await told("ed25519:none") == [{B.key_id}, {A.key_id}]
    before = rings.fetches("a.example")
    rings.world.now += 2 * DAY
    past = await rings.ring.answers_of("a.example", rings.now() - 2 * DAY, [A.key_id])
    assert A.key_id in past[0]["verify_keys"] and rings.fetches("a.example") == before
    rings.world.now += 1
    rings.serve("a.example", lambda: document(rings, A, B))
    rings.ring = rings.made()
    assert await told(A.key_id) == [{A.key_id, B.key_id}], "an answer that holds everything takes the place of all"


@pytest_twisted.ensureDeferred
async def test_a_server_of_ever_new_keys_does_not_fill_the_table(rings: Ring) -> None:
    for number in range(MAX_ANSWERS + 3):
        key = SigningKey.from_seed(bytes([number + 1]) * 32, "a.example")
        rings.serve("a.example", lambda key=key: document(rings, key))
        rings.world.now += DAY
        answers = await rings.ring.answers_of("a.example", rings.now() + 365 * DAY)
        assert list(answers[0]["verify_keys"]) == [key.key_id]
    assert len(answers) == MAX_ANSWERS


@pytest_twisted.ensureDeferred
async def test_retired_keys_hold_until_they_were_retired(rings: Ring) -> None:
    old = {B.key_id: (encode_base64(bytes(B.verify_key)), 1000)}
    rings.serve("a.example", lambda: document(rings, A, old=old))
    assert B.key_id in await rings.ring.keys_for("a.example", [B.key_id], 1000)
    assert B.key_id not in await rings.ring.keys_for("a.example", [B.key_id], 1001)


@pytest_twisted.ensureDeferred
async def test_e06_far_future_validity_is_capped(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A, until=rings.now() + 9999 * DAY))
    assert await rings.ring.keys_for("a.example", [A.key_id], rings.now() + 7 * DAY)
    assert not await rings.ring.keys_for("a.example", [A.key_id], rings.now() + 7 * DAY + 1)


@pytest.mark.parametrize("kind", ["other name", "unsigned", "signed by another", "giant", "many", "not JSON", "no key"])
@pytest_twisted.ensureDeferred
async def test_e06_answers_that_are_refused(rings: Ring, kind: str) -> None:
    def lie() -> Any:
        good = document(rings, A)
        return {
            "other name": document(rings, A, name="b.example"),
            "unsigned": {**good, "signatures": {}},
            "signed by another": {**good, "signatures": document(rings, B)["signatures"]},
            "giant": {**good, "pad": "x" * 200_000},
            "many": sign_json(
                {**good, "old_verify_keys": {f"ed25519:{n}": {"key": "A" * 43, "expired_ts": 1} for n in range(500)}},
                "a.example", A,
            ),
            "not JSON": b"<html>",
            "no key": {**good, "verify_keys": {}},
        }[kind]  # fmt: skip

    rings.serve("a.example", lie)
    assert await rings.ring.keys_for("a.example", [A.key_id, B.key_id]) == {}
    assert rings.fetches("a.example") == 1


@pytest_twisted.ensureDeferred
async def test_a_notary_helps_when_a_server_is_away(rings: Ring) -> None:
    rings.notary(lambda asked: [document(rings, A), document(rings, B, name="uninvited.example")])
    assert A.key_id in await rings.ring.keys_for("a.example", [A.key_id], rings.now())
    rings.world.http.servers.clear()
    assert await rings.ring.keys_for("uninvited.example", [B.key_id]) == {}


@pytest_twisted.ensureDeferred
async def test_e06_a_notary_cannot_replace_a_known_key(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A))
    await rings.ring.keys_for("a.example", [A.key_id])
    rings.world.http.servers.clear()
    impostor = SigningKey(A.key_id, B.key, "a.example")
    rings.notary(lambda asked: [document(rings, impostor, B)])
    rings.world.now += 2 * DAY
    assert await rings.ring.keys_for("a.example", [A.key_id, B.key_id], 0) == {A.key_id: A.verify_key}
    assert rings.fetches("notary.example") == 1


@pytest_twisted.ensureDeferred
async def test_many_servers_are_one_question_to_a_notary(rings: Ring) -> None:
    keys = {f"s{n}.example": SigningKey.from_seed(bytes([n]) * 32) for n in range(1, 31)}
    rings.notary(lambda asked: [document(rings, keys[name], name=name) for name in asked["server_keys"]])
    await rings.ring.prefetch({name: [key.key_id] for name, key in keys.items()}, rings.now())
    assert len([sent for sent in rings.world.http.sent if sent.path.startswith("/_matrix")]) == 1
    assert await rings.ring.keys_for("s7.example", [keys["s7.example"].key_id], rings.now())


@pytest_twisted.ensureDeferred
async def test_events_by_the_validity_of_their_room_version(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A, until=rings.now()))
    at = rings.now()
    events = [signed("4", at + 1), signed("10", at), signed("10", at + 1), signed("10", at, B)]
    found = await rings.ring.check_events(events)
    assert [problem is None for problem in found] == [True, True, False, False]
    await rings.ring.verify_event_signatures(events[1])
    with pytest.raises(SignatureError):
        await rings.ring.verify_event_signatures(events[2])


@pytest_twisted.ensureDeferred
async def test_nobody_is_asked_for_the_key_of_a_policy_server(rings: Ring) -> None:
    """It is in the room's state; where policy server and sender are one, its signature stands beside the sender's."""
    rings.serve("a.example", lambda: document(rings, A))
    event = signed("10", rings.now())
    pdu = with_signature(event.pdu, "a.example", POLICY_KEY_ID, "x" * 86)
    for _ in range(2):
        await rings.ring.verify_event_signatures(Event.from_pdu(pdu, event.version))
    assert rings.fetches("a.example") == 1


@pytest_twisted.ensureDeferred
async def test_we_serve_as_notary(rings: Ring) -> None:
    rings.serve("a.example", lambda: document(rings, A))
    query = KeysQuery(rings.ring, rings.world.domains, rings.now)
    [got] = (await query.query_one(PeerRequest("", {"serverName": "a.example"})))["server_keys"]
    verify_signed_json(got, "a.example", {A.key_id: A.verify_key})
    verify_signed_json(got, "here.example", {rings.world.key.key_id: rings.world.key.verify_key})
    rings.world.http.servers.clear()
    rings.world.now += 30 * DAY
    asked = {"server_keys": {"a.example": {}, "gone.example": {}, "here.example": {}, "evil.example": {}}}
    got = (await query.query_many(PeerRequest("", {}, {}, asked)))["server_keys"]
    assert [one["server_name"] for one in got] == ["a.example", "here.example"]
    for bad in ({}, {"server_keys": []}, {"server_keys": {"x y": {}}}, {"server_keys": {"a.example": {"k": 1}}}):
        with pytest.raises(MatrixError):
            await query.query_many(PeerRequest("", {}, {}, bad))


@pytest_twisted.ensureDeferred
async def test_e06_our_own_answer_is_always_valid(rings: Ring) -> None:
    endpoint = KeysServer(rings.own)
    for hours in (0, 11, 13, 400, -800):
        rings.world.now += hours * 3_600_000
        got = await endpoint.get_keys(PeerRequest("", {}))
        assert rings.now() + DAY // 2 <= got["valid_until_ts"] <= rings.now() + DAY
        verify_signed_json(got, "here.example", {rings.world.key.key_id: rings.world.key.verify_key})
    assert got["old_verify_keys"] == {"ed25519:old": {"key": "A" * 43, "expired_ts": 5}}
    assert await rings.ring.keys_for("here.example", [rings.world.key.key_id], rings.now() + 99 * DAY)


URI = "/_matrix/federation/v1/x?a=b%20c"


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (200, {}),
        (200, {"destination": None}),
        (401, {"destination": "other.example"}),
        (401, {"signed_uri": "/_matrix/federation/v1/x"}),
        (401, {"signed_method": "POST"}),
        (401, {"signed_content": {"other": 1}}),
        (401, {"key": B}),
        (401, {"header": "X-Matrix nonsense"}),
        (401, {"header": None}),
        (401, {"origin": "here.example"}),
        (401, {"origin": "here.example", "key": SigningKey.from_seed(b"h" * 32, "here.example")}),
        (400, {"origin": "a.example:http"}),
        (403, {"origin": "evil.example"}),
        (400, {"body": b"{"}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_incoming_requests(rings: Ring, status: int, changes: dict[str, Any]) -> None:
    rings.serve("a.example", lambda: document(rings, A))
    content = {"text": "ä", "number": 1.5}
    origin, destination = changes.get("origin", "a.example"), changes.get("destination", "here.example")
    signed = xmatrix.request_object(
        changes.get("signed_method", "PUT"), changes.get("signed_uri", URI), origin, destination,
        changes.get("signed_content", content),
    )  # fmt: skip
    key = changes.get("key", A)
    signature = encode_base64(key.sign(xmatrix.bytes_to_sign(signed)))
    header = f'X-Matrix origin="{origin}",key="{key.key_id}",sig="{signature}"'
    if destination is not None:
        header += f',destination="{destination}"'
    header = changes.get("header", header)
    headers = {} if header is None else {"authorization": header}
    auth = RequestAuth("here.example", rings.ring, rings.world.domains, rings.world.destinations)
    body = changes.get("body", orjson.dumps(content))
    if status == 200:
        assert await auth.authenticate("PUT", URI, headers, body) == ("a.example", content)
        return
    with pytest.raises(MatrixError) as caught:
        await auth.authenticate("PUT", URI, headers, body)
    assert caught.value.status == status


@pytest_twisted.ensureDeferred
async def test_d11_what_the_client_signs_the_other_side_accepts(rings: Ring) -> None:
    """The client's spliced canonical JSON against the receiver's parsing."""
    world = rings.world
    auth = RequestAuth("there.example", rings.ring, world.domains)
    world.http.on("there.example", 8448, lambda sent: answer({"ok": True}))
    await world.client.request("there.example", "PUT", "/_matrix/x?y=z", {"b": 1, "a": [1.5, "é"]})
    sent = world.http.sent[-1]
    assert sent.headers["Content-Type"] == "application/json"
    headers = {name.lower(): value for name, value in sent.headers.items()}
    got = await auth.authenticate("PUT", sent.path, headers, sent.body or b"")
    assert got.origin == "here.example"


