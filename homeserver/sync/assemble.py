"""Put the body of a sync together from parts that are JSON bytes already.

Specification: Client-Server API, "GET /_matrix/client/v3/sync". Events come as the bytes they were stored or built
as and
are spliced, never decoded. Parts that many recipients share are built once by the caller and passed in here as bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

EMPTY_EVENTS = b'{"events":[]}'
NO_COUNTS = b'{"notification_count":0,"highlight_count":0}'


def events(parts: Sequence[bytes]) -> bytes:
    """``{"events": [...]}`` around events that are JSON bytes."""
    return b'{"events":[' + b",".join(parts) + b"]}" if parts else EMPTY_EVENTS


def timeline(parts: Sequence[bytes], limited: bool, prev_batch: str) -> bytes:
    """A room's ``timeline``; ``prev_batch`` is a token of ours (plain ASCII without quotes)."""
    return b'{"events":[%b],"limited":%b,"prev_batch":"%b"}' % (
        b",".join(parts),
        b"true" if limited else b"false",
        prev_batch.encode(),
    )


@dataclass(slots=True)
class JoinedRoom:
    """The parts of one entry of ``rooms.join``; each is JSON bytes, None leaves it out."""

    timeline: bytes
    state: bytes = EMPTY_EVENTS
    state_after: bool = False
    account_data: bytes = EMPTY_EVENTS
    ephemeral: bytes = EMPTY_EVENTS
    unread: bytes | None = None
    unread_threads: bytes | None = None
    summary: bytes | None = None

    def dump(self) -> bytes:
        """The room as JSON bytes."""
        return b'{"timeline":%b,"%b":%b,"account_data":%b,"ephemeral":%b%b%b%b}' % (
            self.timeline,
            b"state_after" if self.state_after else b"state",
            self.state,
            self.account_data,
            self.ephemeral,
            _optional(b"unread_notifications", self.unread),
            _optional(b"unread_thread_notifications", self.unread_threads),
            _optional(b"summary", self.summary),
        )


@dataclass(slots=True)
class LeftRoom:
    """The parts of one entry of ``rooms.leave``."""

    timeline: bytes
    state: bytes = EMPTY_EVENTS
    state_after: bool = False
    account_data: bytes = EMPTY_EVENTS

    def dump(self) -> bytes:
        """The room as JSON bytes."""
        return b'{"timeline":%b,"%b":%b,"account_data":%b}' % (
            self.timeline,
            b"state_after" if self.state_after else b"state",
            self.state,
            self.account_data,
        )


@dataclass(slots=True)
class Body:
    """A whole answer. Rooms are JSON bytes by room id; ``device_lists`` are user ids."""

    next_batch: str
    join: dict[str, bytes] = field(default_factory=dict)
    invite: dict[str, bytes] = field(default_factory=dict)
    knock: dict[str, bytes] = field(default_factory=dict)
    leave: dict[str, bytes] = field(default_factory=dict)
    account_data: list[bytes] = field(default_factory=list)
    presence: list[bytes] = field(default_factory=list)
    to_device: list[bytes] = field(default_factory=list)
    devices_changed: Sequence[str] = ()
    devices_left: Sequence[str] = ()
    key_counts: Mapping[str, int] | None = None
    fallback_types: Sequence[str] | None = None
    key_counts_changed: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it that a waiting client should be woken for."""
        return not (
            self.join
            or self.invite
            or self.knock
            or self.leave
            or self.account_data
            or self.presence
            or self.to_device
            or self.devices_changed
            or self.devices_left
            or self.key_counts_changed
        )

    def dump(self) -> bytes:
        """The answer as JSON bytes; sections without content are left out."""
        parts = [b'{"next_batch":"%b"' % self.next_batch.encode()]
        rooms = [
            b'"%b":%b' % (name, _keyed(section))
            for name, section in (
                (b"join", self.join),
                (b"invite", self.invite),
                (b"knock", self.knock),
                (b"leave", self.leave),
            )
            if section
        ]
        if rooms:
            parts.append(b'"rooms":{%b}' % b",".join(rooms))
        for name, listed in (
            (b"account_data", self.account_data),
            (b"presence", self.presence),
            (b"to_device", self.to_device),
        ):
            if listed:
                parts.append(b'"%b":%b' % (name, events(listed)))
        if self.devices_changed or self.devices_left:
            lists = {"changed": list(self.devices_changed), "left": list(self.devices_left)}
            parts.append(b'"device_lists":' + orjson.dumps(lists))
        if self.key_counts is not None:
            parts.append(key_counts(self.key_counts, self.fallback_types or ()))
        return b",".join(parts) + b"}"


@dataclass(slots=True)
class SharedBody:
    """An answer of parts that many readers are given alike; ``rooms`` are the joined ones, see `keyed_room`."""

    next_batch: str
    rooms: Sequence[bytes]
    key_counts: tuple[Mapping[str, int], Sequence[str]]

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it that a waiting client should be woken for."""
        return not self.rooms

    def dump(self) -> bytes:
        """The answer as JSON bytes."""
        rooms = b'"rooms":{"join":{%b}},' % b",".join(self.rooms) if self.rooms else b""
        return b'{"next_batch":"%b",%b%b}' % (self.next_batch.encode(), rooms, key_counts(*self.key_counts))


AnyBody = Body | SharedBody


def keyed_room(room_id: str, room: bytes) -> bytes:
    """One entry of ``rooms.join`` with its key."""
    return orjson.dumps(room_id) + b":" + room


def key_counts(one_time: Mapping[str, int], unused_fallback: Sequence[str]) -> bytes:
    """``device_one_time_keys_count`` and ``device_unused_fallback_key_types``, as members of an object."""
    return b'"device_one_time_keys_count":%b,"device_unused_fallback_key_types":%b' % (
        orjson.dumps(dict(one_time)),
        orjson.dumps(list(unused_fallback)),
    )


def stripped_room(key: str, parts: Iterable[bytes]) -> bytes:
    """An entry of ``rooms.invite`` (``key`` is ``invite_state``) or ``rooms.knock`` (``knock_state``)."""
    return b'{"%b":{"events":[%b]}}' % (key.encode(), b",".join(parts))


def stripped_event(type_: str, state_key: str, sender: str, content: bytes) -> bytes:
    """One event of a stripped state (Client-Server API, "Stripped state")."""
    return b'{"type":%b,"state_key":%b,"sender":%b,"content":%b}' % (
        orjson.dumps(type_),
        orjson.dumps(state_key),
        orjson.dumps(sender),
        content,
    )


def account_datum(type_: str, content: bytes) -> bytes:
    """One event of an ``account_data`` section."""
    return b'{"type":%b,"content":%b}' % (orjson.dumps(type_), content)


def summary(heroes: Sequence[str] | None, joined: int, invited: int) -> bytes:
    """A room's ``summary``; heroes None when the room has a name and needs none."""
    body: dict[str, Any] = {"m.joined_member_count": joined, "m.invited_member_count": invited}
    if heroes is not None:
        body["m.heroes"] = list(heroes)
    return orjson.dumps(body)


def counts(notifications: int, highlights: int) -> bytes:
    """``unread_notifications``."""
    if not notifications and not highlights:
        return NO_COUNTS
    return b'{"notification_count":%d,"highlight_count":%d}' % (notifications, highlights)


def thread_counts(threads: Mapping[str, tuple[int, int]]) -> bytes:
    """``unread_thread_notifications`` from (notifications, highlights) by thread root."""
    return b"{%b}" % b",".join(
        b"%b:%b" % (orjson.dumps(root), counts(*pair)) for root, pair in threads.items() if any(pair)
    )


def room_frame(next_batch: str, room_id: str, room: bytes) -> bytes:
    """A WebSocket frame whose body holds one joined room: the shape of most live traffic."""
    return b'{"type":"sync","body":{"next_batch":"%b","rooms":{"join":{%b:%b}}}}' % (
        next_batch.encode(),
        orjson.dumps(room_id),
        room,
    )


def presence_frame(next_batch: str, event: bytes) -> bytes:
    """A WebSocket frame whose body holds one presence event."""
    return b'{"type":"sync","body":{"next_batch":"%b","presence":%b}}' % (next_batch.encode(), events([event]))


def sync_frame(body: bytes) -> bytes:
    """A WebSocket frame around a body that is JSON bytes."""
    return b'{"type":"sync","body":%b}' % body


def _keyed(section: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join([keyed_room(room_id, room) for room_id, room in section.items()])


def _optional(name: bytes, value: bytes | None) -> bytes:
    return b'' if value is None else b',"%b":%b' % (name, value)


def unread_only(notifications: int, highlights: int, threads: Mapping[str, tuple[int, int]]) -> bytes:
    """A joined room that tells nothing but its unread counts: the whole room's, and each thread's."""
    whole = counts(
        notifications + sum(pair[0] for pair in threads.values()),
        highlights + sum(pair[1] for pair in threads.values()),
    )
    return b'{"unread_notifications":%b%b}' % (
        whole,
        _optional(b"unread_thread_notifications", thread_counts(threads) if threads else None),
    )
