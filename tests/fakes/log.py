"""What the log's tests share: both stores behind one way to open, fail and reopen them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from storage.log.append import Entry, Log
from storage.log.env import open_log
from storage.log.events import SPANS, NewEvent, Span
from storage.memory import MemoryStore, open_memory_log


class Harness:
    """One data directory (or its twin in memory). ``fault`` is called before each storage step."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path
        self.fault: Callable[[str], None] = lambda step: None
        self.released: list[tuple[int, list[Entry]]] = []
        self._memory = MemoryStore(reactor, fault=lambda step: self.fault(step))  # type: ignore[arg-type]
        self.logs: list[Log] = []

    def open(self, **options: Any) -> Log:
        """Open the log, as after a restart when it was open before."""
        if self.kind == "memory":
            log = open_memory_log(self._memory, reactor, "epoch")  # type: ignore[arg-type]
        else:
            options = {"map_size": 1 << 20, **options}
            log = open_log(self.path, reactor, fault=lambda step: self.fault(step), **options)
        log.on_release = lambda position, entries: self.released.append((position, entries))
        self.logs.append(log)
        return log

    def kill(self, log: Log) -> None:
        """Let go of the store without a clean close: the lease stays as it was. Nothing may be in flight."""
        log.closed = True
        log._store.close()

    @property
    def positions(self) -> list[int]:
        """All released positions in the order of release."""
        return [entry.position for _, entries in self.released for entry in entries]


def message(event_id: str, room_id: str = "!room:example.org", **fields: Any) -> NewEvent:
    """An event as the engine would hand it over, spans found by putting the JSON together here."""
    top: dict[str, Any] = {
        "content": {"body": "hello", "msgtype": "m.text"},
        "depth": 5,
        "origin_server_ts": 1000,
        "room_id": room_id,
        "sender": "@alice:example.org",
        "type": "m.room.message",
    }
    beside = ("relation", "flags", "txn", "state_before", "state_after")
    extra = {key: fields.pop(key) for key in beside if key in fields}
    if fields.pop("without_room_id", False):
        del top["room_id"]
    top.update(fields)
    pdu, spans = spliced(top)
    return NewEvent(
        event_id=event_id,
        room_id=room_id,
        pdu=pdu,
        spans=spans,
        sender=top["sender"],
        depth=top["depth"],
        origin_server_ts=top["origin_server_ts"],
        **extra,
    )


def spliced(top: dict[str, Any]) -> tuple[bytes, tuple[Span, ...]]:
    """Canonical JSON of an object and the spans of its known keys."""
    out = b"{"
    found: dict[str, Span] = {}
    for index, key in enumerate(sorted(top)):
        out += (b"," if index else b"") + json.dumps(key).encode() + b":"
        value = json.dumps(top[key], separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        found[key] = (len(out), len(out) + len(value))
        out += value
    return out + b"}", tuple(found.get(key, (0, 0)) for key in SPANS)

