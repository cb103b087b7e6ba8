"""Events: format, size, ids, places of values; making, checking and redacting them."""

import copy
import json

import pytest

from federation.rules import checks
from federation.rules.auth import AuthError, check_auth, check_auth_event_list, check_create
from federation.rules.errors import MatrixError
from federation.rules.event import Event, build_event
from federation.rules.event_format import MAX_PDU_BYTES
from federation.rules.hashes import encode_base64
from federation.rules.power_levels import INFINITE, PowerLevels
from federation.rules.room_versions import ROOM_VERSIONS, room_version
from federation.rules.signing import (
    SignatureError,
    SigningKey,
    read_signing_keys,
    sign_json,
    verify_signed_json,
    write_signing_keys,
)

KEY = SigningKey.from_seed(b"k" * 32)
ALICE, BOB = "@alice:a", "@bob:b"
VERSIONS = pytest.mark.parametrize("version", ROOM_VERSIONS.values(), ids=list(ROOM_VERSIONS))
PUBLIC = bytes(KEY.verify_key)


def make(version, type_="m.room.message", content=None, *, state_key=None, redacts=None, create=None, cited=(), **more):
    """An event of Alice's; ``create`` founds its room and stands before it."""
    hashed = version.room_id_is_create_hash
    values = {
        "room_id": create.room_id if create else None if hashed and type_ == "m.room.create" else "!r:a",
        "sender": ALICE,
        "type": type_,
        "state_key": state_key,
        "content": {"body": "hello"} if content is None else content,
        "redacts": redacts,
        "depth": 1,
        "prev_event_ids": [create.reference()] if create else [],
        "auth_event_ids": [event.reference() for event in cited],
        "origin_server_ts": 1000,
        "server_name": "a",
        "signing_key": KEY,
        "event_id": "$" + f"{type_}{state_key}".replace(":", "").replace("\0", "") + ":a",
    }
    return build_event(version, **{**values, **more})


def founded(version, **content):
    return make(version, "m.room.create", {"creator": ALICE, "room_version": version.id, **content}, state_key="")


def room_of(version, *events, **content):
    create = founded(version, **content)
    made = [make(version, *shape[:2], state_key=shape[2], create=create, **dict(shape[3:])) for shape in events]
    return {event.key: event for event in (create, *made)}


@VERSIONS
def test_a_built_event_is_what_reading_it_gives(version):
    create = founded(version)
    for event in (
        create,
        make(version, create=create, cited=[create]),
        make(version, "m.room.member", {"membership": "join"}, state_key=ALICE, create=create),
        make(version, "m.room.redaction", {"reason": "€"}, redacts="$x:a", create=create),
        make(version, "m.room.topic", {"topic": 'a"b'}, state_key="ключ\0", create=create),
    ):
        parsed = Event.from_pdu({**json.loads(event.json), "unsigned": {"age": 1}}, version)
        loaded = Event.from_json(event.json, version)
        for other in (parsed, loaded, Event.from_json(event.json, version, event.event_id, lazily=False)):
            for name in Event.__slots__:
                if name != "unsigned":
                    assert getattr(other, name) == getattr(event, name), name
        assert parsed.unsigned == {"age": 1} and loaded.unsigned == {}
        for name, (start, end) in event.spans._asdict().items():
            if start:
                holder = event.content if name == "redacts" and version.redacts_in_content else event.pdu
                assert json.loads(event.json[start:end]) == holder[name]
            else:
                assert name not in event.pdu
        checks.check_signatures(event, {"a": {KEY.key_id: PUBLIC}})
        assert checks.verified_or_redacted(event) is event


@VERSIONS
def test_altered_events_are_noticed(version):
    create = founded(version)
    event = make(version, "m.room.topic", {"topic": "true"}, state_key="", create=create)
    content = Event.from_pdu({**event.pdu, "content": {"topic": "false"}}, version)
    checks.check_signatures(content, {"a": {KEY.key_id: PUBLIC}})
    redacted = checks.verified_or_redacted(content)
    assert redacted.content == {} and redacted.event_id == event.event_id
    forged = Event.from_pdu({**event.pdu, "depth": 7}, version)
    for keys in ({"a": {KEY.key_id: PUBLIC}},):
        with pytest.raises(SignatureError):
            checks.check_signatures(forged, keys)
    for keys in ({}, {"a": {}}, {"b": {KEY.key_id: PUBLIC}}):
        with pytest.raises(SignatureError):
            checks.check_signatures(event, keys)


def test_required_signatures_follow_the_room_version():
    for version in ROOM_VERSIONS.values():
        create = founded(version)
        domain = [] if version.hashed_event_ids else ["z"]
        event = make(version, create=create, event_id="$x:z")
        assert checks.required_signatures(event) == {"a", *domain}
        content = {"membership": "join", "join_authorised_via_users_server": "@v:vouch"}
        join = make(version, "m.room.member", content, state_key=ALICE, create=create, event_id="$x:z")
        assert checks.required_signatures(join) == {"a", *domain, *(["vouch"] if version.restricted_join else [])}
        content = {"membership": "invite", "third_party_invite": {}}
        invite = make(version, "m.room.member", content, state_key=BOB, create=create, event_id="$x:z")
        assert checks.required_signatures(invite) == set(domain)


@VERSIONS
def test_a10_the_size_limit_is_exact_and_counts_signatures(version):
    create = founded(version)
    empty = len(make(version, content={"body": ""}, create=create).json)
    exact = make(version, content={"body": "x" * (MAX_PDU_BYTES - empty)}, create=create)
    assert len(exact.json) == MAX_PDU_BYTES
    assert Event.from_pdu({**exact.pdu, "unsigned": {"x": "y" * 100}}, version).event_id == exact.event_id
    pdu = {**exact.pdu, "content": {"body": exact.content["body"] + "x"}}
    for attempt in (lambda: Event.from_pdu(pdu, version), lambda: make(version, content=pdu["content"], create=create)):
        with pytest.raises(MatrixError) as caught:
            attempt()
        assert (caught.value.status, caught.value.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize("name", ["type", "state_key", "sender", "room_id"])
def test_a11_identifiers_are_limited_in_bytes(name):
    version = room_version("11")
    event = make(version, "m.room.topic", {}, state_key="", create=founded(version))
    prefix, suffix = {"sender": ("@", ":a"), "room_id": ("!", ":a")}.get(name, ("", ""))
    most = 255 - len(prefix) - len(suffix)
    exact = prefix + "𝒳" * (most // 4) + "x" * (most % 4) + suffix
    Event.from_pdu({**event.pdu, name: exact}, version)
    with pytest.raises(MatrixError):
        Event.from_pdu({**event.pdu, name: exact.replace("𝒳", "𝒳x", 1)}, version)


WRONG = [None, True, 1.5, -1, "x", [], {}, 2**70, [1], {"a": 1}, "\ud800"]
KEYS = {
    "type": str, "sender": None, "room_id": None, "state_key": str, "content": dict, "depth": None,
    "origin_server_ts": None, "hashes": None, "signatures": None, "auth_events": None, "prev_events": None,
}  # fmt: skip


@VERSIONS
@pytest.mark.parametrize("name", KEYS)
def test_a03_a09_wrong_types_are_refused(name, version):
    event = make(version, "m.room.topic", {}, state_key="", create=founded(version))
    for wrong in WRONG:
        if KEYS[name] and isinstance(wrong, KEYS[name]) and wrong != "\ud800":
            continue
        if wrong == ({} if name == "signatures" else []) and name in ("auth_events", "prev_events", "signatures"):
            continue
        if name == "origin_server_ts" and wrong == -1:
            continue  # odd, and for other servers an event like any other
        with pytest.raises(MatrixError):
            Event.from_pdu({**event.pdu, name: wrong}, version)
    missing = {key: value for key, value in event.pdu.items() if key != name}
    if name != "state_key":
        with pytest.raises(MatrixError):
            Event.from_pdu(missing, version)
    for thing in (None, [], "x", 1):
        with pytest.raises(MatrixError):
            Event.from_pdu(thing, version)


@VERSIONS
def test_a02_floats_and_great_integers_anywhere_in_an_event(version):
    event = make(version, create=founded(version))
    for value in (1.5, 2**53, -(2**60), [{"a": 1e3}]):
        for pdu in ({**event.pdu, "extra": value}, {**event.pdu, "content": {"a": value}}):
            if version.strict_canonical_json:
                with pytest.raises(MatrixError):
                    Event.from_pdu(pdu, version)
            else:
                parsed = Event.from_pdu(pdu, version)
                assert Event.from_json(parsed.json, version).event_id == parsed.event_id
    for depth, fits in ((version.max_depth, True), (version.max_depth + 1, False)):
        if fits:
            Event.from_pdu({**event.pdu, "depth": depth}, version)
        else:
            with pytest.raises(MatrixError):
                Event.from_pdu({**event.pdu, "depth": depth}, version)


@VERSIONS
def test_c03_what_may_be_cited(version):
    create = founded(version)
    member = make(version, "m.room.member", {"membership": "join"}, state_key=ALICE, create=create)
    levels = make(version, "m.room.power_levels", {}, state_key="", create=create)
    other = make(version, "m.room.power_levels", {"ban": 1}, state_key="", create=create, event_id="$other:a")
    topic = make(version, "m.room.topic", {}, state_key="", create=create)
    strange = make(version, "m.room.power_levels", {}, state_key="", room_id="!" + "s" * 43)
    first = [] if version.room_id_is_create_hash else [create]

    def check(cited, is_rejected=None):
        event = make(version, create=create, cited=cited)
        check_auth_event_list(event, cited, is_rejected)

    check([*first, member, levels], lambda event_id: False)
    bad = [[*first, member, member], [*first, levels, other], [*first, topic], [*first, strange]]
    bad.append([create, member] if version.room_id_is_create_hash else [member])
    for cited in bad:
        with pytest.raises(AuthError):
            check(cited)
    with pytest.raises(AuthError):
        check([*first, member], lambda event_id: event_id == member.event_id)
    with pytest.raises(AuthError):
        check_auth_event_list(make(version, "m.room.create", {}, state_key="", cited=[levels]), [levels])
    for name, most in (("auth_events", 10), ("prev_events", 20)):
        event = make(version, create=create)
        Event.from_pdu({**event.pdu, name: [levels.reference()] * most}, version)
        with pytest.raises(MatrixError):
            Event.from_pdu({**event.pdu, name: [levels.reference()] * (most + 1)}, version)


@VERSIONS
def test_create_rules(version):
    check_create(founded(version))
    check_create(make(version, "m.room.create", {"creator": ALICE}, state_key=""))
    bad = [founded(version, room_version="nonsense"), founded(version, room_version=1)]
    bad.append(make(version, "m.room.create", {"creator": ALICE}, state_key="", create=founded(version)))
    if version.room_id_is_create_hash:
        more = ["x", [1], ["@a"], {"@a:b": 1}, None, [ALICE, ":"]]
        bad += [founded(version, additional_creators=value) for value in more]
        check_create(founded(version, additional_creators=[BOB]))
    else:
        bad.append(make(version, "m.room.create", {"creator": ALICE}, state_key="", room_id="!r:b"))
    if not version.creator_is_sender:
        bad.append(make(version, "m.room.create", {}, state_key=""))
    for event in bad:
        with pytest.raises(AuthError):
            check_create(event)


def test_c07_version_12_rooms_are_their_create_event():
    version = room_version("12")
    create = founded(version, additional_creators=[BOB])
    assert create.room_id == "!" + create.event_id[1:] and "room_id" not in create.pdu
    assert create.spans.room_id == (0, 0)
    levels = PowerLevels.of(create, make(version, "m.room.power_levels", {"users": {ALICE: 1}}, state_key=""), version)
    assert levels.user(ALICE) == levels.user(BOB) == INFINITE > 2**53 and levels.user("@c:c") == 0
    state = room_of(version, ("m.room.member", {"membership": "join"}, ALICE), additional_creators=[BOB])
    for users, fits in (({}, True), ({"@c:c": 2**53 - 1}, True), ({ALICE: 100}, False), ({BOB: 0}, False)):
        event = make(version, "m.room.power_levels", {"users": users}, state_key="", create=create)
        if fits:
            check_auth(event, state)
        else:
            with pytest.raises(AuthError):
                check_auth(event, state)
    with pytest.raises(AuthError):
        check_create(Event.from_pdu({**create.pdu, "room_id": create.room_id}, version))


@VERSIONS
def test_c02_levels_of_each_shape_get_their_versions_verdict(version):
    state = room_of(version, ("m.room.member", {"membership": "join"}, ALICE))
    create = state["m.room.create", ""]

    def verdict(content):
        try:
            check_auth(make(version, "m.room.power_levels", content, state_key="", create=create), state)
        except AuthError:
            return False
        return True

    strings, floats, integers = version.string_power_levels, version.float_power_levels, version.integer_power_levels
    for value, allowed in ((7, True), ("7", strings), (" +07 ", strings), ("7.5", False), ("", False), (True, False),
                           ([], False), ({}, False), (2**53 - 1, True), (None, not integers)):  # fmt: skip
        assert verdict({"ban": value}) is allowed, value
        assert verdict({"events": {"m.x": value}}) is allowed, value
        assert verdict({"users": {BOB: value}}) is (allowed and value is not None), value
    if floats:
        assert verdict({"ban": 7.9}) and not verdict({"ban": float(2**1023) * 1.5, "kick": "1e3"})
    for name in ("users", "events"):
        assert not verdict({name: []}) and not verdict({name: "x"}) and verdict({})
    assert not verdict({"users": {"nobody": 1}})


@VERSIONS
def test_c08_redaction_keeps_what_rooms_stand_on(version):
    create = founded(version)
    redacted = checks.redacted_event(create)
    assert redacted.event_id == create.event_id and redacted.room_id == create.room_id
    assert redacted.version is version
    if version.creator_is_sender:
        assert redacted.content == create.content
    member = make(version, "m.room.member", {"membership": "join", "displayname": "A"}, state_key=ALICE, create=create)
    assert checks.redacted_event(member).content == {"membership": "join"}


def test_c09_redactions_of_themselves_or_without_right_do_nothing():
    for version in ROOM_VERSIONS.values():
        create = founded(version)
        target = make(version, create=create)
        redaction = make(version, "m.room.redaction", {}, redacts=target.event_id, create=create)
        assert checks.may_apply_redaction(redaction, target, 0, 50)  # same server
        foreign = make(
            version, "m.room.redaction", {}, redacts=target.event_id, create=create, sender=BOB, event_id="$b:b"
        )
        assert not checks.may_apply_redaction(foreign, target, 49, 50)
        assert checks.may_apply_redaction(foreign, target, 50, 50)
        assert not checks.may_apply_redaction(foreign, redaction, 50, 50)
        own = copy.copy(redaction)
        own.redacts = redaction.event_id
        assert not checks.may_apply_redaction(own, own, 100, 50)


@VERSIONS
def test_third_party_invites(version):
    identity = SigningKey.from_seed(b"i" * 32, key_id="ed25519:0")
    offered = {
        "public_keys": [{"public_key": encode_base64(PUBLIC)}],
        "public_key": encode_base64(bytes(identity.verify_key)),
    }
    state = room_of(
        version,
        ("m.room.member", {"membership": "join"}, ALICE),
        ("m.room.third_party_invite", offered, "token"),
    )
    signed = {"mxid": BOB, "token": "token"}

    def verdict(signed_by, **more):
        body = sign_json({**signed, **more.pop("signed", {})}, "ids", signed_by) if signed_by else dict(signed)
        content = {"membership": "invite", "third_party_invite": {"signed": body}, **more.pop("content", {})}
        event = make(version, "m.room.member", content, state_key=BOB, create=state["m.room.create", ""], **more)
        try:
            check_auth(event, {**state, **more.get("state", {})})
        except AuthError:
            return False
        return True

    assert verdict(identity) and verdict(KEY)
    assert not verdict(SigningKey.from_seed(b"x" * 32))
    assert not verdict(None)
    assert not verdict(identity, signed={"mxid": ALICE})
    assert not verdict(identity, signed={"token": "other"})
    assert not verdict(identity, sender=BOB)
    for wrong in (None, [], "x", {}, {"signed": None}, {"signed": {"token": 1, "mxid": BOB}}):
        assert not verdict(identity, content={"third_party_invite": wrong})
    banned = make(version, "m.room.member", {"membership": "ban"}, state_key=BOB, create=state["m.room.create", ""])
    state[banned.key] = banned
    assert not verdict(identity)


def test_the_place_of_redacts_is_known_whatever_the_room_version():
    for version in ROOM_VERSIONS.values():
        content = {"a": {"redacts": "$no:a"}, "reason": "x"}
        event = make(version, "m.room.redaction", content, redacts="$x:a", create=founded(version))
        assert ("redacts" in event.pdu["content"]) is version.redacts_in_content
        for known in (event, Event.from_pdu(event.pdu, version)):
            start, end = known.spans.redacts
            assert known.json[start:end] == b'"$x:a"' and known.redacts == "$x:a"
        beside = make(version, "m.room.redaction", {}, create=founded(version))
        assert beside.spans.redacts == Event.from_pdu(beside.pdu, version).spans.redacts == (0, 0)


def test_unsupported_versions_are_refused():
    for name in ("13", "", "org.example", "1 "):
        with pytest.raises(MatrixError) as caught:
            room_version(name)
        assert caught.value.errcode == "M_UNSUPPORTED_ROOM_VERSION"


def test_signing_keys_are_kept_as_text_and_named_after_themselves():
    again = read_signing_keys("ed25519 a_x " + encode_base64(b"k" * 32) + "=\n\n")[0]
    assert again.key_id == "ed25519:a_x" and bytes(again.verify_key) == PUBLIC
    assert write_signing_keys(read_signing_keys(write_signing_keys([KEY]))) == write_signing_keys([KEY])
    assert KEY.key_id == SigningKey.from_seed(b"k" * 32).key_id != SigningKey.from_seed(b"l" * 32).key_id
    for bad in ("rsa 1 x", "ed25519 1", "ed25519 1 AAAA", "ed25519 ä " + encode_base64(b"k" * 32), "x"):
        with pytest.raises(ValueError):
            read_signing_keys(bad)


def test_wrong_signatures_are_refused_and_unknown_keys_skipped():
    signed = sign_json({"a": 1, "unsigned": {"b": 2}}, "a", KEY)
    verify_signed_json({**signed, "unsigned": {}}, "a", {KEY.key_id: KEY.verify_key})
    more = {**signed, "signatures": {"a": {**signed["signatures"]["a"], "ed25519:x": "?"}}}
    verify_signed_json(more, "a", {KEY.key_id: PUBLIC})
    for obj, keys in (
        ({**signed, "a": 2}, {KEY.key_id: PUBLIC}),
        (more, {KEY.key_id: PUBLIC, "ed25519:x": PUBLIC}),
        (signed, {}),
        ({"signatures": {"a": 7}}, {KEY.key_id: PUBLIC}),
        ({"signatures": []}, {KEY.key_id: PUBLIC}),
    ):
        with pytest.raises(SignatureError):
            verify_signed_json(obj, "a", keys)


def test_levels_that_are_remembered_are_those_of_their_events():
    version = room_version("10")
    create = founded(version)
    events = [make(version, "m.room.power_levels", {"users": {ALICE: level}}, state_key="") for level in (1, 2)]
    found = [PowerLevels.of(create, event, version) for event in events * 2]
    assert [levels.user(ALICE) for levels in found] == [1, 2, 1, 2]
    assert found[0] is found[2], "read once"
