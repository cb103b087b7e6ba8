"""What is fuzzed (J03): parsers of what others send, each with what has to hold whatever it is given.

A target takes bytes and raises for what must not be. `seeds` are honest inputs to begin with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import orjson

from federation.rules import canonical_json, ids
from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.rules.event import Event, build_event
from federation.rules.redaction import redact
from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.signing import SigningKey
from federation.wire import key_answers, well_known, xmatrix
from federation.wire.http_answer import AnswerReader, HttpFailure
from homeserver.sync.filters import parse_filter
from homeserver.web import body
from homeserver.web.call import parse_query

NOW_MS = 1_700_000_000_000
KEY = SigningKey.from_seed(b"f" * 32, "a.example")
VERSIONS = sorted(ROOM_VERSIONS, key=int)
MAX_PDU = 65_536
USER = "@u:a.example"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser under test."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    head: int | None = None
    """For one that takes JSON: how many bytes stand before it."""


def request_body(data: bytes) -> None:
    """A01, A04, A06: a body is an object that every store can hold, or it is refused."""
    try:
        value = body.decode_object(data)
    except MatrixError as problem:
        assert problem.status in (400, 413)
        return
    assert isinstance(value, dict)
    text = orjson.dumps(value)
    assert orjson.loads(text) == value
    text.decode("utf-8")


def canonical(data: bytes) -> None:
    """A05, A08: what is decoded has one encoding, which decodes to itself."""
    try:
        value = canonical_json.decode_strict(data)
    except MatrixError:
        return
    try:
        text = canonical_json.encode(value)
    except MatrixError:
        text = canonical_json.encode_lax(value)  # it has fractions, or integers beyond 2^53
    again = canonical_json.decode_strict(text)
    assert again == value
    assert canonical_json.encode_lax(again) == canonical_json.encode_lax(value)


def event(data: bytes) -> None:
    """A02, A03, A09 to A11: an event of any room version is refused, or all that is read of it fits together.

    The first byte says which version.
    """
    if not data:
        return
    version = ROOM_VERSIONS[VERSIONS[data[0] % len(VERSIONS)]]
    try:
        pdu = canonical_json.decode_event(memoryview(data)[1:], version.strict_canonical_json)
        found = Event.from_pdu(pdu, version)
    except MatrixError as problem:
        assert problem.status in (400, 413)
        return
    assert len(found.json) <= MAX_PDU
    assert ids.is_valid_event_id(found.event_id) and ids.is_valid_user_id(found.sender)
    assert type(found.depth) is int and type(found.origin_server_ts) is int
    for text in (found.room_id, found.type, found.state_key or ""):
        assert len(text.encode("utf-8")) <= 255
    stored = Event.from_json(found.json, version, found.event_id)
    assert stored.pdu == found.pdu and stored.signed_bytes == found.signed_bytes
    assert orjson.loads(found.json[slice(*found.spans.content)]) == found.content
    bare = redact(found.pdu, version)
    assert redact(bare, version) == bare
    if version.hashed_event_ids:
        assert Event.from_pdu(bare, version).event_id == found.event_id


def identifier(data: bytes) -> None:
    """A12: what passes as an identifier is safe as a key, in SQL and in a path."""
    text = _text(data)
    for is_valid in (ids.is_valid_user_id, ids.is_valid_room_alias, ids.is_valid_room_id, ids.is_valid_event_id):
        if is_valid(text):
            assert "\0" not in text and len(text.encode("utf-8")) <= 255
            assert not ids.server_name_of(text) or ids.is_valid_server_name(ids.server_name_of(text))
    media = ids.parse_mxc(text)
    if media is not None:
        assert "/" not in media.media_id and ".." not in media.server_name
    name = parse_server_name(text)
    if name is not None:
        assert text.isascii() and not set(text) & set("/\\\0 %@?#") and ".." not in text


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def authorization(data: bytes) -> None:
    """D11: credentials by the grammar, or XMatrixError."""
    try:
        found = xmatrix.parse(data.decode("latin-1"))
    except xmatrix.XMatrixError:
        return
    assert 0 < len(found) <= xmatrix.MAX_CREDENTIALS
    for one in found:
        assert ids.is_valid_server_name(one.origin) and ids.is_valid_key_id(one.key_id)


def http_answer(data: bytes) -> None:
    """What an answer is does not depend on the pieces in which it comes, of a size that the first byte says."""
    size, data = 1 + (data[0] if data else 0), data[1:]
    found = []
    for step in (size, max(1, len(data))):
        reader, answer = AnswerReader(1000), None
        try:
            for at in range(0, len(data), step):
                answer = reader.feed(data[at : at + step])
                if answer is not None:
                    break
            answer = answer or reader.ended()
        except HttpFailure:
            answer = None
        found.append(answer)
    for one in found:
        assert one is None or (len(one.body) <= 1000 and 200 <= one.status < 600)
    assert found[0] == found[1]


def well_known_record(data: bytes) -> None:
    """A record that is read can be judged."""
    try:
        record = well_known.parse(data)
    except well_known.WellKnownError:
        return
    assert ids.is_valid_server_name(record.address)
    for name in ("a.example", record.address):
        checked = well_known.verify(record, name, {KEY.key_id: bytes(KEY.verify_key)}, NOW_MS)
        well_known.decide(name, "prefer", None, record, checked.good, NOW_MS)


def key_answer(data: bytes) -> None:
    """A server's keys: taken as they were signed, or KeyAnswerError."""
    try:
        found = key_answers.check(canonical_json.decode_strict(data), NOW_MS)
    except (MatrixError, key_answers.KeyAnswerError):
        return
    assert found.keys and found.valid_until_ts <= NOW_MS + key_answers.SEVEN_DAYS_MS


def sync_filter(data: bytes) -> None:
    """A filter that is taken keeps what it says."""
    try:
        parse_filter(body.decode_object(data))
    except MatrixError as problem:
        assert problem.status == 400


def query(data: bytes) -> None:
    """Query parameters are text that can be written down again."""
    try:
        fields = parse_query(data.decode("latin-1"))
    except MatrixError as problem:
        assert problem.status in (400, 414)
        return
    for name, values in fields.items():
        "".join([name, *values]).encode("utf-8")


def _events() -> tuple[bytes, ...]:
    made = []
    for number, name in enumerate(VERSIONS):
        for type_, state_key, content in (
            ("m.room.message", None, {"body": "hi", "msgtype": "m.text"}),
            ("m.room.power_levels", "", {"users": {USER: 100}, "events": {"m.room.name": 50}}),
            ("m.room.member", USER, {"membership": "join", "join_authorised_via_users_server": "@b:b.example"}),
        ):
            built = build_event(
                ROOM_VERSIONS[name], room_id="!r:a.example", sender=USER, type=type_, state_key=state_key, content=content,
                depth=7, prev_event_ids=[], auth_event_ids=[], origin_server_ts=NOW_MS, server_name="a.example", signing_key=KEY,
            )  # fmt: skip
            made.append(bytes([number]) + orjson.dumps(built.pdu))
    return tuple(made)


JSON_SEEDS = (b"{}", b'{"a":[1,-2,null,true,{"b":"\\ud83d\\ude00"}],"c":1e2}', b'{"a":1.5,"a":"\\u0000"}', b'[[[["x"]]]]')
FILTER = {
    "event_fields": ["content.body", "type"], "event_format": "client", "presence": {"not_types": ["*"]},
    "room": {
        "rooms": ["!r:a.example"], "include_leave": True,
        "timeline": {"limit": 10, "senders": [USER], "types": ["m.room.*"], "contains_url": False},
        "state": {"lazy_load_members": True},
    },
}  # fmt: skip

TARGETS = {
    "request_body": Target(request_body, JSON_SEEDS, head=0),
    "canonical": Target(canonical, JSON_SEEDS, head=0),
    "event": Target(event, _events(), head=1),
    "identifier": Target(
        identifier,
        (b"@u:a.example", b"#a:[::1]:8448", b"!r:1.2.3.4", b"$" + b"a" * 43, b"mxc://a.example/abc", "@ü:a.example".encode()),
    ),
    "authorization": Target(
        authorization,
        (
            xmatrix.build(KEY, "GET", "/_matrix/x", "a.example", "b.example").encode(),
            b'x-matrix origin=a.example:1, key="ed25519:a" , sig = "\\a", X-Matrix origin=a.example:1,key="ed25519:b",sig=a',
        ),
    ),
    "http_answer": Target(
        http_answer,
        (
            b"\x05HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}",
            b"\x00HTTP/1.1 100 Go\r\n\r\nHTTP/1.0 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n",
            b"\x63HTTP/1.1 502 Bad\r\nConnection: close\r\n\r\nbody",
        ),
    ),
    "well_known_record": Target(
        well_known_record,
        (
            b'{"m.server":"b.example:443"}',
            orjson.dumps(well_known.make_record("a.example", "b.example:443", NOW_MS + 1000, [KEY])),
        ),
        head=0,
    ),
    "key_answer": Target(
        key_answer,
        (orjson.dumps(key_answers.make("a.example", [KEY], {"ed25519:old": ("A" * 43, 5)}, NOW_MS + 1000)),),
        head=0,
    ),
    "sync_filter": Target(sync_filter, (b"{}", orjson.dumps(FILTER)), head=0),
    "query": Target(query, (b"a=1&b=%C3%BC&b=+&c", b"from=s1_2&filter=%7B%7D")),
}
"""By name; what fuzzing has found is in the file of ``corpus`` that has this name."""
