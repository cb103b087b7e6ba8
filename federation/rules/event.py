"""Events: what they are to the rest of the server, how they are read, and how a new one is made.

Specification: room versions, "Event format"; Server-Server API, "Signing Events". An event is held as its
canonical JSON; everything else is read from there when somebody asks.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from federation.rules import canonical_json
from federation.rules.event_format import check_identifier, check_pdu_format, check_size
from federation.rules.hashes import (
    encode_base64,
    encode_event,
    event_id_of_hash,
)
from federation.rules.redaction import redact_content
from federation.rules.room_versions import RoomVersion
from federation.rules.signing import SigningKey

_ABSENT = (0, 0)


class Spans(NamedTuple):
    """Where values stand in an event's bytes, each ``(start, end)``; ``(0, 0)`` for one that is not there.

    ``redacts`` of a redaction is where its room version has it, at the top level or inside ``content``.
    """

    content: tuple[int, int]
    room_id: tuple[int, int]
    sender: tuple[int, int]
    state_key: tuple[int, int]
    type: tuple[int, int]
    redacts: tuple[int, int]


class Event:
    """One event, not to be changed once made.

    ``json`` is its canonical encoding with hashes and signatures and without ``unsigned``; ``unsigned`` is
    what came beside it. ``redacts`` is read from where the room version puts it, None when it is no string.
    ``signed_bytes`` are what signatures cover and the id is the hash of, ``content_digest`` is the content hash as
    it should be. The values come from the bytes on first use.
    """

    __slots__ = (
        "auth_event_ids",
        "content",
        "content_digest",
        "depth",
        "event_id",
        "json",
        "key",
        "origin_server_ts",
        "pdu",
        "prev_event_ids",
        "redacts",
        "room_id",
        "sender",
        "signed_bytes",
        "spans",
        "state_key",
        "type",
        "unsigned",
        "version",
    )

    event_id: str
    room_id: str
    sender: str
    type: str
    state_key: str | None
    key: tuple[str, str | None]
    content: dict[str, Any]
    depth: int
    origin_server_ts: int
    auth_event_ids: tuple[str, ...]
    prev_event_ids: tuple[str, ...]
    redacts: str | None
    version: RoomVersion
    pdu: dict[str, Any]
    json: bytes
    signed_bytes: bytes
    content_digest: bytes
    spans: Spans
    unsigned: dict[str, Any]

    @classmethod
    def from_pdu(cls, pdu: dict[str, Any], version: RoomVersion, *, event_id: str | None = None) -> "Event":
        """An event that arrived from outside: its format and size are checked, its id is computed.

        Neither signatures nor hashes are verified here. Raises MatrixError 400 M_BAD_JSON, 413 M_TOO_LARGE.
        """
        check_pdu_format(pdu, version)
        event = cls()
        event.version = version
        unsigned = pdu.get("unsigned")
        event.unsigned = unsigned if isinstance(unsigned, dict) else {}
        event.pdu = {key: value for key, value in pdu.items() if key != "unsigned"}
        # Encoded once: the event, what its id and signatures are made over and what its hash is made over differ only
        # in the members that they leave out.
        members = canonical_json.encode_members(event.pdu, version.strict_canonical_json)
        event.json, event.spans = _join_with_spans(event.pdu, members, version)
        check_size(event.json)
        event.signed_bytes = _signed_bytes(event.pdu, members, version)
        event.content_digest = _content_digest(members)
        if event_id is not None:
            event.event_id = event_id
        return event

    @classmethod
    def from_json(
        cls, data: bytes, version: RoomVersion, event_id: str | None = None, lazily: bool = True
    ) -> "Event":
        """An event that we stored: canonical bytes that are trusted, parsed only when a value is asked for.

        Without ``event_id`` it is computed when asked for. ``lazily=False`` parses at once.
        """
        event = cls()
        event.version = version
        event.json = data
        event.unsigned = {}
        if event_id is not None:
            event.event_id = event_id
        if not lazily:
            event._read()
        return event

    @property
    def is_state(self) -> bool:
        """Whether it is a state event: it has a ``state_key``, be it empty."""
        return self.state_key is not None

    def reference(self) -> Any:
        """How other events name this one: its id, in room versions 1 and 2 a pair of id and hash."""
        if self.version.hashed_event_ids:
            return self.event_id
        return [self.event_id, {"sha256": encode_base64(sha256(self.signed_bytes).digest())}]

    def __getattr__(self, name: str) -> Any:
        # Reached only for slots that nobody has filled yet.
        if name == "pdu":
            self.pdu = _parse(self.json, self.version)
        elif name == "event_id":
            hashed = self.version.hashed_event_ids
            digest = sha256(self.signed_bytes).digest() if hashed else b""
            self.event_id = event_id_of_hash(digest, self.version) if hashed else self.pdu["event_id"]
        elif name in ("spans", "signed_bytes", "content_digest"):
            members = canonical_json.encode_members(self.pdu, self.version.strict_canonical_json)
            if name == "spans":
                self.spans = _join_with_spans(self.pdu, members, self.version)[1]
            elif name == "signed_bytes":
                self.signed_bytes = _signed_bytes(self.pdu, members, self.version)
            else:
                self.content_digest = _content_digest(members)
        elif name in _READ_FROM_PDU:
            self._read()
        else:
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def _read(self) -> None:
        pdu, version = self.pdu, self.version
        self.type = pdu["type"]
        self.sender = pdu["sender"]
        self.state_key = pdu.get("state_key")
        self.key = (self.type, self.state_key)
        self.content = pdu["content"]
        self.depth = pdu["depth"]
        self.origin_server_ts = pdu["origin_server_ts"]
        self.auth_event_ids = _ids(pdu["auth_events"], version)
        self.prev_event_ids = _ids(pdu["prev_events"], version)
        self.redacts = _redacts(pdu, version)
        if version.room_id_is_create_hash and self.key == ("m.room.create", ""):
            self.room_id = "!" + self.event_id[1:]
        else:
            self.room_id = pdu["room_id"]

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r} of {self.sender}>"


_READ_FROM_PDU = frozenset(
    (
        "auth_event_ids",
        "content",
        "depth",
        "key",
        "origin_server_ts",
        "prev_event_ids",
        "redacts",
        "room_id",
        "sender",
        "state_key",
        "type",
    )
)


def build_event(
    version: RoomVersion,
    *,
    room_id: str | None,
    sender: str,
    type: str,
    content: dict[str, Any],
    state_key: str | None = None,
    redacts: str | None = None,
    depth: int,
    prev_event_ids: Sequence[Any],
    auth_event_ids: Sequence[Any],
    origin_server_ts: int,
    server_name: str,
    signing_key: SigningKey,
    event_id: str | None = None,
) -> Event:
    """Make, hash and sign a new event of ours.

    ``prev_event_ids`` and ``auth_event_ids`` are what ``Event.reference`` gives (plain ids from room version
    3 on). ``event_id`` is for room versions 1 and 2, where the sender chooses it; ``room_id`` is None for a
    create event whose hash becomes the room id. ``redacts`` goes to where the room version has it.
    Raises MatrixError 400 M_BAD_JSON for content that canonical JSON cannot carry, 413 M_TOO_LARGE.
    """
    check_identifier("type", type)
    check_identifier("sender", sender)
    if state_key is not None:
        check_identifier("state_key", state_key)
    if redacts is not None and version.redacts_in_content:
        content = {**content, "redacts": redacts}
        redacts = None
    dumps = orjson.dumps
    try:
        # The event's keys in canonical order, cut where hash, signature and redaction differ.
        head = b'{"auth_events":' + dumps(auth_event_ids) + b',"content":'
        body = encode_event(content, version)
        kept = redact_content(type, content, version)
        kept_body = body if kept is content else encode_event(kept, version) if kept else b"{}"
        depth_part = b',"depth":%d' % depth
        if not version.hashed_event_ids:
            depth_part += b',"event_id":' + dumps(event_id)
        before_redacts = b',"origin_server_ts":%d,"prev_events":' % origin_server_ts + dumps(prev_event_ids)
        redacts_part = b"" if redacts is None else b',"redacts":' + dumps(redacts)
        sender_json, type_json = dumps(sender), dumps(type)
        room_part = b',"sender":' + sender_json
        room_json = b""
        if room_id is not None:
            room_json = dumps(room_id)
            room_part = b',"room_id":' + room_json + room_part
        state_json = b"" if state_key is None else dumps(state_key)
        tail = (b',"state_key":' + state_json if state_json else b"") + b',"type":' + type_json + b"}"
    except TypeError as error:
        raise canonical_json.CanonicalJSONError(f"Not canonical JSON: {error}") from None
    digest = sha256(head + body + depth_part + before_redacts + redacts_part + room_part + tail).digest()
    hash_text = encode_base64(digest)
    before_redacts = b',"hashes":{"sha256":"%b"}' % hash_text.encode("ascii") + before_redacts
    signed = head + kept_body + depth_part + before_redacts + room_part + tail
    signature = encode_base64(signing_key.sign(signed))
    signatures = {server_name: {signing_key.key_id: signature}}
    until_room = head + body + depth_part + before_redacts + redacts_part
    until_tail = until_room + room_part + b',"signatures":' + dumps(signatures)

    event = Event()
    event.version = version
    event.json = until_tail + tail
    check_size(event.json)
    if event_id is None or version.hashed_event_ids:
        event_id = event_id_of_hash(sha256(signed).digest(), version)
    event.event_id = event_id
    event.room_id = "!" + event_id[1:] if room_id is None else room_id
    event.sender = sender
    event.type = type
    event.state_key = state_key
    event.key = (type, state_key)
    event.content = content
    event.depth = depth
    event.origin_server_ts = origin_server_ts
    event.auth_event_ids = _ids(auth_event_ids, version)
    event.prev_event_ids = _ids(prev_event_ids, version)
    event.unsigned = {}
    event.redacts = redacts
    event.spans = _spans_of_built(
        len(head),
        len(body),
        len(until_room),
        redacts_part,
        room_json,
        sender_json,
        until_tail,
        state_json,
        tail,
    )
    if version.redacts_in_content and type == "m.room.redaction":
        event.redacts = _string_or_none(content.get("redacts"))
        event.spans = event.spans._replace(redacts=_redacts_in(content, event.spans.content[0], version))
    return event


def _parse(data: bytes, version: RoomVersion) -> dict[str, Any]:
    if version.strict_canonical_json:
        return orjson.loads(data)
    return canonical_json.decode_strict(data)  # keeps integers that orjson would take for floats


def _ids(entries: Sequence[Any], version: RoomVersion) -> tuple[str, ...]:
    return tuple(entries) if version.hashed_event_ids else tuple(entry[0] for entry in entries)


def _redacts(pdu: dict[str, Any], version: RoomVersion) -> str | None:
    if pdu["type"] != "m.room.redaction":
        return None
    holder = pdu["content"] if version.redacts_in_content else pdu
    return _string_or_none(holder.get("redacts"))


def _string_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


_UNHASHED = frozenset(("hashes", "signatures"))


def _signed_bytes(pdu: dict[str, Any], members: dict[str, bytes], version: RoomVersion) -> bytes:
    """The event as redaction leaves it, without signatures."""
    keep = version.redaction.top
    kept = {key: value for key, value in members.items() if key in keep and key != "signatures"}
    content = pdu["content"]
    remains = redact_content(pdu["type"], content, version)
    if remains is not content:
        kept["content"] = b'"content":' + (encode_event(remains, version) if remains else b"{}")
    return canonical_json.join_members(kept)


def _content_digest(members: dict[str, bytes]) -> bytes:
    hashed = {key: value for key, value in members.items() if key not in _UNHASHED}
    return sha256(canonical_json.join_members(hashed)).digest()


def _join_with_spans(pdu: dict[str, Any], members: dict[str, bytes], version: RoomVersion) -> tuple[bytes, Spans]:
    """Canonical JSON of an event, and where its values are."""
    places = _places(members)
    if version.room_id_is_create_hash and pdu["type"] == "m.room.create":
        places.pop("room_id", None)
    if version.redacts_in_content and pdu["type"] == "m.room.redaction":
        places["redacts"] = _redacts_in(pdu["content"], places["content"][0], version)
    return canonical_json.join_members(members), Spans(*[places.get(key, _ABSENT) for key in Spans._fields])


def _redacts_in(content: dict[str, Any], start: int, version: RoomVersion) -> tuple[int, int]:
    """The place of ``redacts`` in a content whose bytes begin at ``start``."""
    if not isinstance(content.get("redacts"), str):
        return _ABSENT
    begin, end = _places(canonical_json.encode_members(content, version.strict_canonical_json))["redacts"]
    return start + begin, start + end


_SPANNED = frozenset(Spans._fields)


def _places(members: dict[str, bytes]) -> dict[str, tuple[int, int]]:
    """Where the values of ``Spans`` are in the object that these members make."""
    places: dict[str, tuple[int, int]] = {}
    at = 1
    for key, member in members.items():
        end = at + len(member)
        if key in _SPANNED:
            places[key] = (at + len(key) + 3, end)  # behind the quotes and the colon
        at = end + 1
    return places


def _spans_of_built(
    content_start: int,
    content_length: int,
    room_start: int,
    redacts_part: bytes,
    room_json: bytes,
    sender_json: bytes,
    until_tail: bytes,
    state_json: bytes,
    tail: bytes,
) -> Spans:
    redacts = (room_start - len(redacts_part) + 11, room_start) if redacts_part else _ABSENT  # ',"redacts":'
    room = _ABSENT
    sender_start = room_start + 10  # ',"sender":'
    if room_json:
        room = (room_start + 11, room_start + 11 + len(room_json))  # ',"room_id":'
        sender_start = room[1] + 10
    tail_start, end = len(until_tail), len(until_tail) + len(tail)
    state, type_start = _ABSENT, tail_start + 8  # ',"type":'
    if state_json:
        state = (tail_start + 13, tail_start + 13 + len(state_json))  # ',"state_key":'
        type_start = state[1] + 8
    return Spans(
        (content_start, content_start + content_length),
        room,
        (sender_start, sender_start + len(sender_json)),
        state,
        (type_start, end - 1),
        redacts,
    )
