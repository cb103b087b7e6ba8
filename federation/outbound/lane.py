"""What waits for one destination, and the transaction that is made of it.

Nothing here is a copy of an event: events wait as references into the log, typing, receipts and presence as the
newest of their kind, to-device messages lie in the log until they are accepted.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from federation.outbound.catch_up import Due
from federation.outbound.destination import MAX_EDUS, Destination
from federation.rules.canonical_json import encode_lax

MAX_WAITING = 5_000
"""References that wait in memory for one destination; beyond that the log is read again later."""
MAX_KEYED = 2_000


class DeviceChange(NamedTuple):
    """A change of a user's devices: ``device_id`` is empty for the user's keys or when it is not known which.

    ``position`` is where it waits in the log; ``version`` the position of the user's last change that it tells of, and
    ``previous`` that of the one before: 0 when the destination was told of none, -1 when it may have missed some.
    """

    position: int
    user_id: str
    device_id: str
    version: int
    previous: int


class Flight(NamedTuple):
    """One transaction as it is sent, and sent again until it is accepted."""

    txn_id: str
    body: bytes
    events: int
    """Position of its last event, 0 for none."""
    devices: int
    """Position of its last change of devices, 0 for none."""
    messages: tuple[int, ...]
    """Positions of its to-device messages."""
    items: int


class Lane:
    """A destination and what waits for it."""

    __slots__ = (
        "destination",
        "devices",
        "events",
        "flight",
        "hello",
        "keyed",
        "loaded",
        "messages",
        "rooms",
        "running",
        "scheduled",
    )

    def __init__(self, destination: Destination, loaded: bool = True) -> None:
        self.destination = destination
        self.events: deque[Due] = deque()
        self.devices: deque[DeviceChange] = deque()
        self.keyed: dict[tuple[str, ...], tuple[str, Any]] = {}
        self.messages = 0
        """Position of the first to-device message that may wait, 0 for none."""
        self.hello = False
        self.loaded = loaded
        """Whether everything that is missing waits here; else the log has to be read from the cursor first."""
        self.running = False
        self.scheduled = 0
        """When the lane is to be looked at again (ms), 0 for not at all."""
        self.rooms: set[str] = set()
        self.flight: Flight | None = None

    @property
    def waiting(self) -> int:
        """How many items wait in memory."""
        return len(self.events) + len(self.devices) + len(self.keyed)

    @property
    def busy(self) -> bool:
        """Whether there is anything to send."""
        return bool(
            self.flight or self.events or self.devices or self.keyed or self.messages or self.hello or not self.loaded
        )

    def first_unsent(self) -> int | None:
        """Position of the first durable thing that waits, None when nothing does."""
        firsts = [queue[0].position for queue in (self.events, self.devices) if queue]
        if self.messages:
            firsts.append(self.messages)
        return min(firsts, default=None)

    def put_event(self, due: Due) -> None:
        """An event for this destination."""
        if self.loaded:
            self.events.append(due)
            self._bound()

    def put_devices(self, change: DeviceChange) -> None:
        """A change of devices for this destination."""
        if self.loaded:
            self.devices.append(change)
            self._bound()

    def put_latest(self, key: tuple[str, ...], type_: str, value: Any) -> None:
        """Something of which only the newest counts: ``key`` starts with the EDU's type."""
        if not self.destination.dormant and (key in self.keyed or len(self.keyed) < MAX_KEYED):
            self.keyed[key] = (type_, value)

    def _bound(self) -> None:
        if len(self.events) + len(self.devices) > MAX_WAITING:
            self.let_go()

    def let_go(self) -> None:
        """Keep nothing in memory; the cursor says from where to read when the destination can be reached again."""
        first = self.first_unsent()
        if not self.destination.behind and first is not None:
            self.destination.cursor = first - 1
            self.destination.behind = True
        self.events.clear()
        self.devices.clear()
        self.keyed.clear()
        self.flight = None
        self.loaded = not self.destination.behind

    def landed(self, flight: Flight) -> None:
        """A transaction was accepted, or its one item set aside: what it carried waits no more."""
        self.flight = None
        while self.events and self.events[0].position <= flight.events:
            self.events.popleft()
        while self.devices and self.devices[0].position <= flight.devices:
            self.devices.popleft()


def take_latest(lane: Lane, limit: int) -> list[bytes]:
    """EDUs of the newest typing, receipts and presence; those that fit leave the lane."""
    edus: list[bytes] = []
    receipts: list[dict[str, Any]] = []
    presence: list[dict[str, Any]] = []
    for key in list(lane.keyed):
        if len(edus) + len(receipts) + bool(presence) >= limit:
            break
        type_, value = lane.keyed.pop(key)
        if type_ == "m.receipt":
            _merge_receipt(receipts, value)
        elif type_ == "m.presence":
            presence.append(value)
        else:
            edus.append(edu(type_, value))
    edus.extend(edu("m.receipt", content) for content in receipts)
    if presence:
        edus.append(edu("m.presence", {"push": presence}))
    return edus


def _merge_receipt(contents: list[dict[str, Any]], receipt: Any) -> None:
    """Put a receipt into the first content where the user has none in the room yet (threads need their own EDUs)."""
    data: dict[str, Any] = {"ts": receipt.ts}
    if receipt.thread:
        data["thread_id"] = receipt.thread
    value = {"event_ids": [receipt.event_id], "data": data}
    for content in contents:
        users = content.setdefault(receipt.room_id, {}).setdefault(receipt.type, {})
        if receipt.user_id not in users:
            users[receipt.user_id] = value
            return
    contents.append({receipt.room_id: {receipt.type: {receipt.user_id: value}}})


def edu(type_: str, content: Any) -> bytes:
    """An EDU as canonical JSON."""
    return b'{"content":%s,"edu_type":%s}' % (
        encode_lax(content),
        orjson.dumps(type_),
    )


def edu_of_bytes(type_: str, content: bytes) -> bytes:
    """The same for content that is canonical already."""
    return b'{"content":%s,"edu_type":%s}' % (content, orjson.dumps(type_))


def transaction(origin: str, now_ms: int, pdus: Iterable[bytes], edus: list[bytes]) -> bytes:
    """A transaction as canonical JSON, spliced from parts that are canonical."""
    assert len(edus) <= MAX_EDUS, "the bounds of a transaction"
    return b'{"edus":[%s],"origin":%s,"origin_server_ts":%d,"pdus":[%s]}' % (
        b",".join(edus),
        orjson.dumps(origin),
        now_ms,
        b",".join(pdus),
    )
