"""The specification's own examples, and values derived from it."""

import copy
import json
import os
from pathlib import Path

import pytest

from federation.rules import canonical_json, hashes, signing
from federation.rules.endpoint import parse_server_name
from federation.rules.power_levels import NotALevel, read_level
from federation.rules.redaction import redact
from federation.rules.room_versions import DEFAULT, ROOM_VERSIONS, room_version

SPEC = Path(os.environ.get("FOLKMOOT_SPEC", Path(__file__).parents[4] / "shared" / "spec")) / "vectors.json"


@pytest.fixture(scope="module")
def vectors():
    if not SPEC.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SPEC} is missing")
        pytest.skip(f"{SPEC} is missing")
    return json.loads(SPEC.read_text())


@pytest.fixture
def key(vectors):
    seed = hashes.decode_base64(vectors["signing_key"]["seed_base64"])
    return signing.SigningKey.from_seed(seed, vectors["signing_key"]["server_name"], vectors["signing_key"]["key_id"])


def versions_of(text):
    first, _, last = text.partition("-")
    return [ROOM_VERSIONS[str(number)] for number in range(int(first), int(last or first) + 1)]


def test_base64(vectors):
    for case in vectors["unpadded_base64"]["cases"]:
        data = case["input_utf8"].encode()
        assert hashes.encode_base64(data) == case["expected"]
        assert hashes.decode_base64(case["expected"]) == data
        assert hashes.decode_base64(case["expected"] + "=" * (-len(case["expected"]) % 4)) == data


def test_canonical_json(vectors):
    for case in vectors["canonical_json"]["cases"]:
        expected = case["expected"].encode()
        assert canonical_json.encode_lax(canonical_json.decode_lax(case["input"].encode())) == expected
        if "note" not in case:
            assert canonical_json.encode(canonical_json.decode_strict(case["input"].encode())) == expected


def test_public_key(vectors, key):
    assert hashes.encode_base64(bytes(key.verify_key)) == vectors["signing_key"]["public_key_base64_derived"]


def test_json_signing(vectors, key):
    for case in vectors["json_signing"]["cases"]:
        signed = signing.sign_json(case["input"], key.server_name, key)
        assert signed == case["expected"]
        signing.verify_signed_json(signed, key.server_name, {key.key_id: bytes(key.verify_key)})


def test_event_signing(vectors, key):
    version = room_version("1")
    for case in vectors["event_signing"]["cases"]:
        pdu = copy.deepcopy(case["input"])
        pdu["hashes"] = {"sha256": hashes.encode_base64(hashes.content_hash(pdu, version))}
        signed = signing.sign_json(redact(pdu, version), key.server_name, key)
        pdu["signatures"] = signed["signatures"]
        assert pdu == case["expected"]


def test_reference_hashes(vectors, key):
    for case in vectors["reference_hash_derived"]["cases"]:
        version = room_version(case["room_version"])
        assert hashes.encode_base64(hashes.content_hash(case["input"], version)) == case["content_hash"]
        redacted = redact(case["signed"], version)
        redacted.pop("signatures")
        assert redacted == case["redacted_for_hash"]
        assert hashes.event_id(case["signed"], version) == case["event_id"]
        signing.verify_signed_json(
            redact(case["signed"], version), key.server_name, {key.key_id: bytes(key.verify_key)}
        )


def test_c08_redaction_keeps_exactly_the_protected_keys(vectors):
    for row, keep in vectors["redaction_keep"]["by_room_versions"].items():
        for version in versions_of(row):
            every_key = {k for rows in keep["content"].values() for k in rows} | {"body", "allow", "invite", "x"}
            for type_ in (*keep["content"], "m.room.message", "m.room.aliases", "m.room.redaction"):
                top = dict.fromkeys((*keep["top"], "redacts", "unsigned", "age", "origin", "membership"), 1)
                content = {name: name for name in every_key if "." not in name and name != "*"}
                content["third_party_invite"] = {"signed": {"a": 1}, "display_name": "x"}
                redacted = redact({**top, "type": type_, "content": content}, version)
                assert set(redacted) == set(keep["top"])
                wanted = keep["content"].get(type_, [])
                if wanted == ["*"]:
                    assert redacted["content"] == content
                    continue
                expected = {name: name for name in wanted if name in content and name != "third_party_invite"}
                if "third_party_invite.signed" in wanted:
                    expected["third_party_invite"] = {"signed": {"a": 1}}
                assert redacted["content"] == expected, (version.id, type_)
                assert redact(redacted, version) == redacted


def test_c02_power_level_values(vectors):
    values = vectors["power_level_values"]
    strings, floats = versions_of(values["string_ok_versions"]), versions_of(values["float_ok_versions"])
    for version in ROOM_VERSIONS.values():
        for text, level in values["string_cases"]:
            assert_level(text, level if version in strings else None, version)
        for text in values["string_reject"]:
            assert_level(text, None, version)
        for text, level in values["float_cases"]:
            assert_level(float(text), level if version in floats else None, version)
        for wrong in (True, False, None, [], {}, float("inf"), float("nan"), "٣", "1_0", "9" * 400, 10**400):
            assert_level(wrong, None, version)
        assert_level(-7, -7, version)


def assert_level(value, level, version):
    if level is not None:
        assert read_level(value, version) == level
        return
    with pytest.raises(NotALevel):
        read_level(value, version)


def test_server_names(vectors):
    assert all(parse_server_name(name) for name in vectors["server_names"]["valid"])


def test_depth_limits(vectors):
    limits = vectors["limits"]
    for row, most in (("1-5", limits["depth_max_v1_5"]), ("6-12", limits["depth_max_v6_plus"])):
        assert {version.max_depth for version in versions_of(row)} == {most}
    assert DEFAULT == "12" and list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
