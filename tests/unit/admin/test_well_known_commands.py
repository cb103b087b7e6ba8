"""``folkmoot well-known`` and ``folkmoot resolve``: what they print, and what they leave alone."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred

from config.schema import Config, WellKnownPolicy
from federation.rules.signing import SigningKey, write_signing_keys
from federation.wire.discovery import SrvRecord
from federation.wire.http import ConnectFailure, HttpFailure
from federation.wire.well_known import Pin, make_record, parse, verify
from homeserver import cli
from homeserver.admin import resolve_server
from tests.fakes.wire import World, answer, key_document

KEY = SigningKey.from_seed(b"k" * 32, "example.org", "ed25519:a_1")
NEXT = SigningKey.from_seed(b"n" * 32, "example.org", "ed25519:a_2")
DAY = 86_400_000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_well_known_prints_a_record_that_others_can_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "signing.key").write_text(write_signing_keys([KEY, NEXT]))
    (tmp_path / "c.yaml").write_text(
        "server_name: example.org\nsigning_key_path: signing.key\npublic_baseurl: https://hs.example.org/\n"
    )
    for flags in [], ["--json"]:
        assert cli.main(["well-known", "--config", "c.yaml", *flags]) == 0
        printed = capsys.readouterr().out
        assert len(printed.splitlines()) == 1 or not flags
        record = parse(printed.encode())
        assert record.address == "hs.example.org:443"
        until = record.document["valid_until_ts"]
        keys = {key.key_id: bytes(key.verify_key) for key in (KEY, NEXT)}
        checked = verify(record, "example.org", keys, until - 7 * DAY + 1000)
        assert (set(checked.good), checked.problem) == ({"ed25519:a_1", "ed25519:a_2"}, "")


def test_well_known_makes_no_key_and_no_record_that_nobody_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["well-known", "--server-name", "example.org"]) == 1
    assert "start the server first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folkmoot-data").mkdir()
    (tmp_path / "folkmoot-data" / "signing.key").write_text(write_signing_keys([KEY]))
    assert cli.main(["well-known", "--json", "--server-name", "example.org:8448"]) == 1
    assert "never look for a record" in json.loads(capsys.readouterr().out)["problems"][0]


def test_a_pin_that_cannot_be_read_is_no_reason_to_stop() -> None:
    config = Config(server_name="here.example")
    assert resolve_server.stored_pin(config, "a.example")[0] is None
    assert resolve_server.stored_pin(config, "no name") == (None, "")


def fail(problem: Exception) -> Any:
    raise problem


class Org:
    """``example.org``, delegated to ``hs.example.org``, with keys published there."""

    def __init__(self) -> None:
        world = self.world = World()
        self.document: Any = make_record("example.org", "hs.example.org:443", world.now + DAY, [KEY])
        self.keys = [KEY]
        world.http.on("example.org", 443, lambda sent: answer(self.document))
        world.http.on(
            "hs.example.org",
            443,
            lambda sent: answer(key_document("example.org", *self.keys, until=world.now + DAY)),
        )
        world.dns.hosts["hs.example.org"] = ["192.168.1.1", "9.9.9.9"]

    async def look(self, name: str = "example.org", pin: Pin | None = None, **settings: Any) -> Any:
        config = Config(server_name="here.example", **settings)
        world = self.world
        found = await resolve_server.look(config, name, world.http, world.dns, lambda: world.now, pin)
        return found, resolve_server.as_text(found), orjson.loads(orjson.dumps(resolve_server.as_facts(found)))


@ensureDeferred
async def test_resolve_tells_steps_verdict_and_addresses() -> None:
    found, text, facts = await Org().look()
    assert [step["number"] for step in facts["steps"]] == ["3", "3.2"]
    assert facts["record"]["outcome"] == "follow" and "no key of the domain was pinned before" in facts["record"]["reason"]
    assert facts["targets"] == [{"host": "hs.example.org", "port": 443, "addresses": ["9.9.9.9"]}]
    assert facts["problems"] == [] and found.failure is None and facts["keys"] == ["ed25519:a_1"]
    for part in "step 3: https://example.org/", "record (policy prefer): follow", "9.9.9.9", "hs.example.org:443":
        assert part in text
    assert "192.168.1.1" not in text


@ensureDeferred
async def test_resolve_of_a_hijacked_web_host_tells_the_operator_why() -> None:
    org = Org()
    org.document = {"m.server": "thief.example:443"}
    pin = Pin({KEY.key_id: bytes(KEY.verify_key)}, "hs.example.org:443", org.world.now)
    _, text, facts = await org.look(pin=pin)
    assert facts["record"]["outcome"] == "keep" and "not signed" in facts["record"]["reason"]
    assert facts["host_header"] == "hs.example.org:443"
    assert f"pin: {KEY.key_id}" in text


@ensureDeferred
async def test_resolve_of_a_record_that_is_required_and_missing_shows_the_step() -> None:
    org = Org()
    org.document = {"m.server": "hs.example.org:443"}
    policy = WellKnownPolicy(domains={"example.org": "require"})
    found, text, facts = await org.look(federation_well_known_policy=policy)
    assert [step["number"] for step in facts["steps"]] == ["3"]
    assert facts["policy"] == "require" and facts["record"]["outcome"] == "refuse"
    assert "cannot be reached" in text and facts["problems"] == [found.failure]


@ensureDeferred
async def test_resolve_without_published_keys_follows_unverified() -> None:
    org = Org()
    org.keys = [NEXT]
    _, _, facts = await org.look()
    assert facts["record"]["outcome"] == "follow" and "could not be had" in facts["record"]["reason"]


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (lambda org: answer(key_document("thief.example", KEY, until=org.world.now + DAY)), "thief.example is there"),
        (lambda org: answer({}, 404), "status 404"),
        (lambda org: answer({"verify_keys": {}}), "names no server"),
        (lambda org: fail(HttpFailure("certificate verify failed")), "certificate verify failed"),
        (lambda org: fail(ConnectFailure("connection refused")), "connection refused"),
    ],
)
@ensureDeferred
async def test_resolve_tells_why_the_server_is_not_there(there: Any, told: str) -> None:
    org = Org()
    org.world.http.on("hs.example.org", 443, lambda sent: there(org))
    found, text, facts = await org.look()
    assert found.failure is not None and told in found.failure
    assert facts["keys"] == [] and "example.org cannot be reached" in text


@ensureDeferred
async def test_resolve_by_srv_to_a_private_address_only_and_refused_names() -> None:
    org = Org()
    org.world.dns.services["_matrix-fed._tcp.b.example"] = [SrvRecord(1, 1, 8448, "p.b.example")]
    org.world.dns.hosts["p.b.example"] = ["10.0.0.1"]
    found, _, facts = await org.look("b.example")
    assert [step["number"] for step in facts["steps"]] == ["3", "4"]
    assert "must not be connected to" in facts["targets"][0]["problem"]
    assert found.failure == "there is no address to connect to"
    assert (await org.look("no name"))[0].steps == ()
    denied, _, _ = await org.look(federation_domain_denylist=("example.org",))
    assert denied.failure is not None and "does not allow" in denied.failure
