"""Signed well-known records: the verdicts, pinning, handing over to a new key, and hijacked web hosts."""

from typing import Any

import orjson
import pytest
import pytest_twisted

from federation.rules.signing import SigningKey
from federation.wire.discovery import DiscoveryFailed
from federation.wire.http import HttpRequest
from federation.wire.well_known import Outcome, Pin, decide, make_record, parse
from tests.fakes.wire import World, answer, key_document

NOW = 1_700_000_000_000
LATER = NOW + 86_400_000
OLD = SigningKey.from_seed(b"o" * 32)
NEW = SigningKey.from_seed(b"n" * 32)
THIEF = SigningKey.from_seed(b"t" * 32)
PIN = Pin({OLD.key_id: bytes(OLD.verify_key)}, "hs.example:443", NOW)
PUBLISHED = {key.key_id: bytes(key.verify_key) for key in (OLD, NEW)}


def made(*keys: SigningKey, address: str = "new.example:443", until: int = LATER, **changes: Any) -> Any:
    document = {**make_record("a.example", address, until, list(keys)), **changes}
    return parse(orjson.dumps(document))


UNSIGNED = parse(b'{"m.server": "new.example:443"}')
BAD = {
    "unsigned": UNSIGNED,
    "missing": None,
    "expired": made(OLD, until=NOW),
    "changed": made(OLD, **{"m.server": "thief.example:1"}),
    "other domain": made(OLD, server_name="b.example"),
    "another key": made(THIEF),
    "published key without the pinned one": made(NEW),
    "wrong beside right": made(OLD, signatures={"a.example": {OLD.key_id: "AAAA"}}),
    "no time": made(OLD, valid_until_ts="soon"),
    "empty signatures": made(signatures={}),
    "signatures of a wrong shape": made(signatures=[1]),
}


def test_first_signed_record_pins_its_key() -> None:
    verdict = decide("a.example", "prefer", None, made(OLD), PUBLISHED, NOW)
    assert verdict.outcome is Outcome.FOLLOW and not verdict.trouble
    assert verdict.pin == Pin(PIN.keys, "new.example:443", LATER)


@pytest.mark.parametrize("what", list(BAD))
@pytest.mark.parametrize("policy", ["prefer", "require"])
def test_a_pinned_domain_without_a_good_record_keeps_its_last_good_address(what: str, policy: Any) -> None:
    verdict = decide("a.example", policy, PIN, BAD[what], PUBLISHED, NOW)
    assert (verdict.outcome, verdict.address, verdict.pin) == (Outcome.KEEP, "hs.example:443", None)
    assert verdict.trouble and verdict.reason


@pytest.mark.parametrize("what", list(BAD))
def test_a_domain_without_a_pin_is_refused_only_where_a_record_is_required(what: str) -> None:
    if what == "published key without the pinned one":
        pytest.skip("good for a domain that has no pin")
    record = BAD[what]
    assert decide("a.example", "require", None, record, PUBLISHED, NOW).outcome is Outcome.REFUSE
    verdict = decide("a.example", "prefer", None, record, PUBLISHED, NOW)
    assert verdict.pin is None
    assert verdict.outcome is (Outcome.FALL_BACK if record is None else Outcome.FOLLOW)


@pytest.mark.parametrize("what", list(BAD))
def test_ignore_looks_at_nothing(what: str) -> None:
    verdict = decide("a.example", "ignore", PIN, BAD[what], {}, NOW)
    record = BAD[what]
    assert (verdict.address, verdict.pin) == (record.address if record else None, None)


def test_a_key_hands_over_to_the_next() -> None:
    both = decide("a.example", "prefer", PIN, made(OLD, NEW), PUBLISHED, NOW)
    assert both.pin is not None and both.pin.keys == PUBLISHED
    alone = decide("a.example", "prefer", both.pin, made(NEW), {}, NOW)
    assert alone.pin is not None and set(alone.pin.keys) == {NEW.key_id}
    assert decide("a.example", "prefer", alone.pin, made(OLD), PUBLISHED, NOW).outcome is Outcome.KEEP


def test_another_key_under_the_pinned_id_is_worth_nothing() -> None:
    fake = SigningKey(OLD.key_id, THIEF.key)
    published = {OLD.key_id: bytes(THIEF.verify_key)}
    assert decide("a.example", "prefer", PIN, made(fake), published, NOW).outcome is Outcome.KEEP


class Domain:
    """``a.example`` on the wire: a web host, and homeservers that publish keys."""

    def __init__(self, world: World) -> None:
        from federation.wire.key_answers import MAX_ANSWER_BYTES, check

        self.world = world
        self.document: Any = {}
        world.http.on("a.example", 443, lambda sent: answer(self.document, cache_control="max-age=60"))

        class Keys:
            async def published(self, server_name: str, address: str, key_ids: tuple[str, ...]) -> Any:
                try:
                    body = await world.client.unsigned_get_at(
                        server_name, address, "/_matrix/key/v2/server", MAX_ANSWER_BYTES
                    )
                except Exception:
                    return {}
                found = check(orjson.loads(body), world.now)
                return {one: bytes(key.verify_key) for one, key in found.keys.items() if one in key_ids}

        world.resolver.keys = Keys()

    def publish(self, host: str, *keys: SigningKey) -> None:
        def serve(sent: HttpRequest) -> Any:
            return answer(key_document("a.example", *keys, until=self.world.now + 86_400_000))

        self.world.http.on(host, 443, serve)

    def point(self, address: str, *keys: SigningKey) -> None:
        self.document = make_record("a.example", address, self.world.now + 86_400_000, list(keys))

    async def leads_to(self) -> str:
        self.world.now += 3_600_000
        return (await self.world.resolver.resolve("a.example")).targets[0].host


@pytest_twisted.ensureDeferred
async def test_a_hijacked_web_host_redirects_nothing() -> None:
    domain = Domain(World())
    domain.publish("hs.example", OLD)
    domain.publish("thief.example", THIEF)
    domain.point("hs.example:443", OLD)
    assert await domain.leads_to() == "hs.example"
    domain.document = {"m.server": "thief.example:443"}
    assert await domain.leads_to() == "hs.example"
    domain.point("thief.example:443", THIEF)
    assert await domain.leads_to() == "hs.example"
    assert not any(sent.target.host == "thief.example" for sent in domain.world.http.sent)
    verdict = domain.world.resolver.verdict_of("a.example")
    assert verdict is not None and verdict.trouble and "pinned key" in verdict.reason
    domain.world.http.servers.pop(next(one for one in domain.world.http.servers if one.host == "a.example"))
    assert await domain.leads_to() == "hs.example"


@pytest_twisted.ensureDeferred
async def test_moving_and_changing_keys_properly() -> None:
    domain = Domain(World())
    domain.publish("hs.example", OLD)
    domain.point("hs.example:443", OLD)
    await domain.leads_to()
    domain.publish("new.example", NEW, OLD)
    domain.point("new.example:443", OLD, NEW)
    assert await domain.leads_to() == "new.example"
    assert set(domain.world.pins.pins["a.example"].keys) == {OLD.key_id, NEW.key_id}
    domain.point("third.example:443", NEW)
    assert await domain.leads_to() == "third.example"


@pytest_twisted.ensureDeferred
async def test_a_required_record_is_required() -> None:
    domain = Domain(World())
    domain.world.policies["a.example"] = "require"
    domain.document = {"m.server": "hs.example:443"}
    with pytest.raises(DiscoveryFailed, match="signed record is required"):
        await domain.leads_to()
    assert (await domain.world.resolver.resolve("a.example:8448")).targets[0].port == 8448
