"""Events: the room's ordered log of records, found by event id, by position and by time.

A record is the event's canonical JSON as received, once, behind a header of fixed fields, so that readers take
slices and never parse. The writer says where in the JSON the values of some top-level keys are (*spans*).

Sequence numbers order a room: 1, 2, 3… as events arrive, 0, -1, -2… for history fetched later. An *outlier*
(known, but with no place in the room's order: a remote room's auth events, a rejected event) has none.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec
import orjson

from storage.log.append import Batch, Kind
from storage.log.catalog import EVENT_IDS, EVENTS, OUTLIERS, TIMESTAMPS
from storage.log.keys import (
    BIAS,
    OUTLIER_SEQ,
    from_seq_key,
    from_timestamp_key,
    part,
    seq_key,
    timestamp_key,
    u64,
)
from storage.log.relations import Relation, drop_relation, put_relation
from storage.log.view import Snapshot, View

REJECTED: Final = 1
SOFT_FAILED: Final = 2
OUTLIER: Final = 4
REDACTED: Final = 8
RELAYED: Final = 16
"""Another server's event that this server has accepted for it (send_join and the like) and sends to the others."""

SPANS: Final = ("content", "room_id", "sender", "state_key", "type", "redacts")
"""The keys whose values the writer locates, in this order; a redaction's ``redacts`` may lie inside ``content``."""
Span = tuple[int, int]
"""Start and end byte offsets of a JSON value in the pdu; ``(0, 0)`` when the key is absent."""
ABSENT: Final[Span] = (0, 0)

_VERSION: Final = 1
# version, flags, root_size, root_count | position, room_nid, seq, depth, ts | 6 spans |
# lengths of event_id, room_id, device_id, txn_id, redacted_by
_HEADER = struct.Struct(">BBBB QQqqq 12I 5H")
_DEPTH_LIMIT: Final = BIAS - 1
_NO_SEQ: Final = seq_key(0, OUTLIER_SEQ)[8:]
"""How the id row of an outlier ends."""


class NewEvent(msgspec.Struct, kw_only=True):
    """What the writer says about an event that it stores."""

    event_id: str
    room_id: str
    pdu: bytes
    """Canonical JSON."""
    spans: tuple[Span, ...]
    """One span for each of :data:`SPANS`."""
    sender: str
    depth: int
    origin_server_ts: int
    state_before: bytes = b""
    """Root of the state before the event (:mod:`storage.log.state_map`), ``b""`` for none."""
    state_after: bytes = b""
    room_state: bytes = b""
    """Root of the room's current state once the event was placed, ``b""`` where that is ``state_after``."""
    flags: int = 0
    redacted_by: str = ""
    txn: tuple[str, str] | None = None
    """Device id and transaction id of the local sender's request."""
    relation: Relation | None = None


class EventRecord:
    """A stored event: a lazy view over its bytes.

    Plain attributes: ``position`` (0: none), ``room_nid``, ``seq`` (``None`` for an outlier), ``depth``,
    ``origin_server_ts`` (milliseconds), ``flags``.
    """

    __slots__ = (
        "_data",
        "_lengths",
        "_roots",
        "_spans",
        "_tail",
        "depth",
        "flags",
        "origin_server_ts",
        "position",
        "room_nid",
        "seq",
    )

    def __init__(self, data: bytes) -> None:
        """``data`` as in EVENTS or OUTLIERS. Raises ``ValueError`` when it is damaged."""
        try:
            fields = _HEADER.unpack_from(data)
        except struct.error as error:
            raise ValueError("damaged event record") from error
        version, self.flags, root_size, root_count = fields[:4]
        self.position, self.room_nid, seq, self.depth, self.origin_server_ts = fields[4:9]
        if version != _VERSION:
            raise ValueError(f"event record of version {version}")
        self.seq: int | None = None if seq == OUTLIER_SEQ else seq
        self._spans = fields[9:21]
        self._lengths = fields[21:26]
        self._roots = (root_size, root_count)
        self._tail = _HEADER.size
        self._data = data

    def _piece(self, index: int) -> bytes:
        start = self._tail + sum(self._lengths[:index])
        return self._data[start : start + self._lengths[index]]

    @property
    def _pdu_start(self) -> int:
        size, count = self._roots
        a, b, c, d, e = self._lengths
        return self._tail + a + b + c + d + e + size * count

    def _span(self, index: int) -> bytes | None:
        end = self._spans[2 * index + 1]
        if not end:
            return None
        base = self._pdu_start
        return self._data[base + self._spans[2 * index] : base + end]

    def _string(self, index: int) -> str | None:
        value = self._span(index)
        if value is None:
            return None
        if b"\\" in value:
            decoded = orjson.loads(value)
            return decoded if isinstance(decoded, str) else None
        return value[1:-1].decode()

    @property
    def event_id(self) -> str:
        """The event's id."""
        start = self._tail
        return self._data[start : start + self._lengths[0]].decode()

    @property
    def room_id(self) -> str:
        """The room's id, also for events that do not carry it (create events of room version 12)."""
        if self._lengths[1]:
            return self._piece(1).decode()
        return self._string(1) or ""

    @property
    def sender(self) -> str:
        """The sender's user id."""
        return self._string(2) or ""

    @property
    def state_key(self) -> str | None:
        """The state key, ``None`` for events that are no state."""
        return self._string(3)

    @property
    def type(self) -> str:
        """The event's type."""
        return self._string(4) or ""

    @property
    def redacts(self) -> str | None:
        """``redacts``: at the top level or, from room version 11 on, inside ``content``."""
        return self._string(5)

    @property
    def pdu(self) -> bytes:
        """The event's canonical JSON."""
        return self._data[self._pdu_start :]

    @property
    def content_json(self) -> bytes:
        """The JSON bytes of ``content``."""
        return self._span(0) or b"{}"

    @property
    def spans(self) -> tuple[Span, ...]:
        """One span for each of :data:`SPANS`."""
        flat = self._spans
        return tuple((flat[i], flat[i + 1]) for i in range(0, len(flat), 2))

    @property
    def state_before(self) -> bytes:
        """Root of the state before the event, ``b""`` for none."""
        size, count = self._roots
        start = self._pdu_start - size * count
        root = self._data[start : start + size]
        return root if any(root) else b""  # zeros stand in beside a state after

    @property
    def state_after(self) -> bytes:
        """Root of the state after the event, ``b""`` for none."""
        size, count = self._roots
        start = self._pdu_start - size * (count - 1 if count > 1 else count)
        root = self._data[start : start + size]
        return root if any(root) else b""

    @property
    def room_state(self) -> bytes:
        """Root of the room's current state once the event was placed."""
        size, count = self._roots
        start = self._pdu_start - size
        return self._data[start : start + size] if count == 3 else self.state_after

    @property
    def redacted_by(self) -> str | None:
        """Id of the redaction that took the content away."""
        return self._piece(4).decode() or None if self._lengths[4] else None

    @property
    def txn(self) -> tuple[str, str] | None:
        """Device id and transaction id of the local sender's request."""
        if not self._lengths[3]:
            return None
        return self._piece(2).decode(), self._piece(3).decode()

    @property
    def rejected(self) -> bool:
        """The event failed authorization."""
        return bool(self.flags & REJECTED)

    @property
    def soft_failed(self) -> bool:
        """The event is not authorized by the current state: part of the graph, not shown to clients."""
        return bool(self.flags & SOFT_FAILED)

    @property
    def redacted(self) -> bool:
        """The content was taken away."""
        return bool(self.flags & REDACTED)

    @property
    def data(self) -> bytes:
        """The record as stored."""
        return self._data

    def client_json(self, with_room_id: bool, unsigned: bytes | None = None) -> bytes:
        """The event in client format, spliced from slices of the stored bytes.

        ``with_room_id=False`` for places that name the room themselves (sync). ``unsigned``: JSON bytes of
        the ``unsigned`` object, left out when ``None``. A redaction has ``redacts`` both at the top level and
        in ``content``, whatever its room version (room version 11, "Moving the redacts property").
        """
        data = self._data
        base = self._pdu_start
        c0, c1, _r0, _r1, s0, s1, k0, k1, t0, t1, x0, x1 = self._spans
        pieces = [
            b'{"content":',
            data[base + c0 : base + c1] if c1 else b"{}",
            b',"event_id":',
            orjson.dumps(data[self._tail : self._tail + self._lengths[0]].decode()),
            b',"origin_server_ts":%d,"sender":' % self.origin_server_ts,
            data[base + s0 : base + s1],
            b',"type":',
            data[base + t0 : base + t1],
        ]
        if k1:
            pieces += (b',"state_key":', data[base + k0 : base + k1])
        if with_room_id:
            pieces += (b',"room_id":', orjson.dumps(self.room_id))
        if x1:
            redacts = data[base + x0 : base + x1]
            pieces += (b',"redacts":', redacts)
            if not c0 < x0 < c1 and data[base + t0 : base + t1] == b'"m.room.redaction"':
                # Canonical order puts the content before a top-level redacts, so that it is never absent here.
                rest = pieces[1][1:]
                pieces[1] = b'{"redacts":' + redacts + (rest if rest == b"}" else b"," + rest)
        if unsigned is not None:
            pieces += (b',"unsigned":', unsigned)
        pieces.append(b"}")
        return b"".join(pieces)


def pack_record(event: NewEvent, position: int, room_nid: int, seq: int | None) -> bytes:
    """The bytes of a record. Raises ``ValueError`` for spans or identifiers that do not fit."""
    before, after = event.state_before, event.state_after
    if before and after and len(before) != len(after):
        raise ValueError("state roots of different sizes")
    roots = before if before == after else (before or bytes(len(after))) + (after or bytes(len(before)))
    if event.room_state and event.room_state != after:
        # Forks met, or the event is soft-failed: neither state of the event is the room's.
        size = len(event.room_state)
        roots = (before or bytes(size)) + (after or bytes(size)) + event.room_state
    size = len(before) or len(after) or len(event.room_state)
    event_id = event.event_id.encode()
    # The room id is in the pdu, except in create events of room version 12.
    room = b"" if event.spans[1] != ABSENT else event.room_id.encode()
    device, txn = (text.encode() for text in event.txn or ("", ""))
    redacted_by = event.redacted_by.encode()
    flags = event.flags | (OUTLIER if seq is None else 0) | (REDACTED if redacted_by else 0)
    try:
        header = _HEADER.pack(
            _VERSION,
            flags if seq is None else flags & ~OUTLIER,
            size,
            len(roots) // size if size else 0,
            position,
            room_nid,
            OUTLIER_SEQ if seq is None else seq,
            min(event.depth, _DEPTH_LIMIT),
            event.origin_server_ts,
            *(offset for span in event.spans for offset in span),
            len(event_id),
            len(room),
            len(device),
            len(txn),
            len(redacted_by),
        )
    except struct.error as error:
        raise ValueError(f"event {event.event_id} does not fit a record: {error}") from error
    return b"".join((header, event_id, room, device, txn, redacted_by, roots, event.pdu))


def put_event(
    batch: Batch, room_nid: int, seq: int, event: NewEvent, *, announce: bool = True, note: object = None
) -> EventRecord:
    """Store an event at ``seq`` of its room with all its indexes.

    Takes a position: an EVENT entry, or BACKFILL when ``seq`` is 0 or less. ``announce=False`` (soft-failed
    and other events that no client is told of) gives a position without waking anybody: the entry is written
    as BACKFILL. ``note`` goes to the feed. An event that was an outlier stops being one.
    """
    key = seq_key(room_nid, seq)
    kind = Kind.EVENT if announce and seq > 0 else Kind.BACKFILL
    position = batch.entry(kind, room_id=event.room_id, user_id=event.sender, ref=key, note=note)
    data = pack_record(event, position, room_nid, seq)
    id_key = part(event.event_id)
    if batch.get(OUTLIERS, id_key) is not None:
        batch.delete(OUTLIERS, id_key)
    batch.put(EVENTS, key, data)
    batch.put(EVENT_IDS, id_key, key)
    batch.put(TIMESTAMPS, timestamp_key(room_nid, event.origin_server_ts, seq), b"")
    if event.relation is not None:
        put_relation(batch, room_nid, seq, event.event_id, event.sender, event.relation)
    return EventRecord(data)


def put_outlier(batch: Batch, room_nid: int, event: NewEvent) -> EventRecord:
    """Store an event without place in the room's order. Takes no position, wakes nobody.

    Must not be used for an event that has a sequence number already.
    """
    data = pack_record(event, 0, room_nid, None)
    id_key = part(event.event_id)
    batch.put(OUTLIERS, id_key, data)
    batch.put(EVENT_IDS, id_key, seq_key(room_nid, OUTLIER_SEQ))
    return EventRecord(data)


def rewrite_record(batch: Batch, record: EventRecord, event: NewEvent) -> EventRecord:
    """Replace a stored record in place (same id, position and place); returns the new one."""
    data = pack_record(event, record.position, record.room_nid, record.seq)
    if record.seq is None:
        batch.put(OUTLIERS, part(record.event_id), data)
    else:
        batch.put(EVENTS, seq_key(record.room_nid, record.seq), data)
    return EventRecord(data)


def as_new(record: EventRecord) -> NewEvent:
    """The fields of a stored record, to be changed and stored again."""
    return NewEvent(
        event_id=record.event_id,
        room_id=record.room_id,
        pdu=record.pdu,
        spans=record.spans,
        sender=record.sender,
        depth=record.depth,
        origin_server_ts=record.origin_server_ts,
        state_before=record.state_before,
        state_after=record.state_after,
        room_state=record.room_state,
        flags=record.flags & ~OUTLIER,
        redacted_by=record.redacted_by or "",
        txn=record.txn,
    )


def redact_record(
    batch: Batch,
    record: EventRecord,
    new_pdu: bytes,
    new_spans: tuple[Span, ...],
    redacted_by: str,
    relation: Relation | None = None,
) -> EventRecord:
    """Overwrite the stored event with its redacted form: the original content is gone for every reader.

    ``relation``: what the original content related to; its index rows go as well. Followers that keep copies
    (search) are told by a REDACTION entry.
    """
    event = as_new(record)
    event.pdu, event.spans, event.redacted_by = new_pdu, new_spans, redacted_by
    if record.seq is not None:
        batch.entry(
            Kind.REDACTION,
            room_id=event.room_id,
            user_id=event.sender,
            ref=seq_key(record.room_nid, record.seq),
        )
        if relation is not None:
            drop_relation(batch, record.room_nid, record.seq, relation)
    return rewrite_record(batch, record, event)


def place_of(view: View, event_id: str) -> tuple[int, int | None] | None:
    """``(room_nid, seq)`` of an event, ``seq`` ``None`` for an outlier; ``None`` when unknown."""
    key = view.get(EVENT_IDS, part(event_id))
    if key is None:
        return None
    room_nid, seq = from_seq_key(key)
    return room_nid, None if seq == OUTLIER_SEQ else seq


def event_by_id(view: View, event_id: str) -> EventRecord | None:
    """The stored event, outliers too; ``None`` when unknown."""
    id_key = part(event_id)
    key = view.get(EVENT_IDS, id_key)
    if key is None:
        return None
    data = view.get(OUTLIERS, id_key) if key.endswith(_NO_SEQ) else view.get(EVENTS, key)
    return None if data is None else EventRecord(data)


def event_at(view: View, room_nid: int, seq: int) -> EventRecord | None:
    """The event at ``seq`` of a room."""
    data = view.get(EVENTS, seq_key(room_nid, seq))
    return None if data is None else EventRecord(data)


def room_slice(
    snapshot: Snapshot,
    room_nid: int,
    start_seq: int,
    stop_seq: int,
    *,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[EventRecord]:
    """Events with ``start_seq <= seq < stop_seq`` in the room's order (``reverse``: newest first)."""
    start, stop = seq_key(room_nid, start_seq), seq_key(room_nid, stop_seq)
    for _, data in snapshot.range(EVENTS, start, stop, reverse=reverse, limit=limit):
        yield EventRecord(data)


def last_seq_at(snapshot: Snapshot, room_nid: int, last_seq: int, position: int) -> int:
    """The greatest forward ``seq`` whose event has a position of at most ``position``; 0 for none.

    ``last_seq``: the room's last one. Forward events have rising positions, so this is a binary search.
    """
    low, high = 0, last_seq
    while low < high:
        middle = (low + high + 1) // 2
        data = snapshot.get(EVENTS, seq_key(room_nid, middle))
        # A gap (purged history) is old.
        if data is None or int.from_bytes(data[4:12], "big") <= position:
            low = middle
        else:
            high = middle - 1
    return low


def event_near(snapshot: Snapshot, room_nid: int, ts: int, *, forward: bool) -> Iterator[tuple[int, int]]:
    """``(ts, seq)`` of events at or after ``ts`` rising, or at or before it falling (timestamp_to_event)."""
    if forward:
        start, stop = timestamp_key(room_nid, ts, -BIAS), u64(room_nid + 1)
    else:
        start, stop = u64(room_nid), timestamp_key(room_nid, ts + 1, -BIAS)
    for key, _ in snapshot.range(TIMESTAMPS, start, stop, reverse=not forward):
        _, found, seq = from_timestamp_key(key)
        yield found, seq
