"""What of the log goes to other servers as ephemeral messages: receipts, typing, presence, changes of devices.

Server-Server API, "Typing Notifications", "Presence", "Receipts", "Device Management". A follower's part: entries come from
the queues (``queue``), what concerns a destination goes into its lane.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

import orjson
from twisted.internet.interfaces import IDelayedCall

from federation.outbound.lane import DeviceChange, Lane
from federation.outbound.ports import Hosts, PresenceOf, TypingUsers
from federation.rules.ids import server_name_of
from storage.log import device_lists
from storage.log import events as event_log
from storage.log.append import Entry, Kind, Log
from storage.log.keys import from_seq_key

TYPING_AGAIN_SECONDS = 25.0
"""Typing is said again as long as it lasts: other servers forget it after half a minute."""
PRESENT_AGAIN_SECONDS = 1500.0
"""Presence too: other servers take half an hour of silence for absence."""
PRESENT_PER_SECOND = 100
MAX_INTRODUCED = 1_000
"""Users whose presence a server is told when it comes into a room."""


class Lanes(Protocol):
    """The queues."""

    def lane(self, server: str) -> Lane | None:
        """The lane of a destination; None when there is nobody to send to."""

    def look_at(self, lane: Lane) -> None:
        """Something was put into a lane."""


class EduRoutes:
    """Puts ephemeral messages into lanes."""

    def __init__(
        self,
        lanes: Lanes,
        log: Log,
        hosts: Hosts,
        server_name: str,
        clock: Any,
        typing: TypingUsers | None,
        presence: PresenceOf | None,
    ) -> None:
        self._lanes = lanes
        self._log = log
        self._hosts = hosts
        self._server_name = server_name
        self._suffix = f":{server_name}"
        self._clock = clock
        self._typing = typing
        self._presence = presence
        self._typed: dict[str, set[str]] = {}
        self._timers: dict[str, IDelayedCall] = {}

    def start(self) -> None:
        """Begin to repeat what other servers would forget."""
        if self._typing is not None:
            self._timer("typing", TYPING_AGAIN_SECONDS, self._type_again)
        if self._presence is not None:
            self._timer("presence", PRESENT_AGAIN_SECONDS, self._present_again)

    def stop(self) -> None:
        """Repeat nothing any more."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()

    def route(self, entry: Entry) -> None:
        """Take an entry of the log in."""
        kind = entry.kind
        if kind == Kind.EVENT:
            self._introduce(entry)
        elif kind == Kind.RECEIPT:
            self._route_receipt(entry)
        elif kind == Kind.TYPING:
            self._route_typing(entry.room_id)
        elif kind == Kind.PRESENCE:
            self._route_presence(entry.user_id)
        elif kind == Kind.DEVICE_LIST and not entry.ref:
            self._route_devices(entry)

    # -- people who meet ---------------------------------------------------------------------------------------------

    def _introduce(self, entry: Entry) -> None:
        """Somebody joined: servers that meet a user of ours hear of the user's devices and presence."""
        user_id = self._joined(entry)
        if user_id is None:
            return
        server = server_name_of(user_id)
        if server == self._server_name:
            met = self._hosts.servers_met(user_id, entry.room_id)
            self._introduce_devices(entry, user_id, met)
            if self._presence is not None and self._presence.is_present(user_id):
                self._say_presence(met, user_id)
        elif self._presence is not None and self._hosts.servers(entry.room_id).get(server) == 1:
            is_present = self._presence.is_present
            for present in islice(filter(is_present, self._hosts.our_users(entry.room_id)), MAX_INTRODUCED):
                self._say_presence([server], present)

    def _introduce_devices(self, entry: Entry, user_id: str, servers: Iterable[str]) -> None:
        version = device_lists.last_change(self._log, user_id)
        if version is not None:
            self._put_devices(DeviceChange(entry.position, user_id, "", version, 0), servers)

    def _joined(self, entry: Entry) -> str | None:
        """The user whom an event brought into its room; after a restart also one who was in it and has another name."""
        note: Any = entry.note
        if note is not None:
            target: str | None = note.target
            return target if note.membership == "join" and note.prev_membership != "join" else None
        with self._log.snapshot() as snapshot:
            record = event_log.event_at(snapshot, *from_seq_key(entry.ref))
        if record is None or record.type != "m.room.member":
            return None
        return record.state_key if orjson.loads(record.content_json).get("membership") == "join" else None

    # -- devices -----------------------------------------------------------------------------------------------------

    def _route_devices(self, entry: Entry) -> None:
        if entry.user_id.endswith(self._suffix):
            previous = entry.note if isinstance(entry.note, int) else -1
            change = DeviceChange(entry.position, entry.user_id, entry.device_id, entry.position, previous)
            self._put_devices(change, self._hosts.servers_of_user(entry.user_id))

    def _put_devices(self, change: DeviceChange, servers: Iterable[str]) -> None:
        for server in servers:
            lane = self._lanes.lane(server)
            if lane is not None:
                lane.put_devices(change)
                self._lanes.look_at(lane)

    # -- receipts, typing, presence ----------------------------------------------------------------------------------

    def _route_receipt(self, entry: Entry) -> None:
        receipt: Any = entry.note
        if entry.ref or receipt is None or not entry.user_id.endswith(self._suffix):
            return
        key = ("m.receipt", entry.room_id, entry.user_id, receipt.thread)
        self._to_all(self._hosts.servers(entry.room_id), key, "m.receipt", receipt)

    def _route_typing(self, room_id: str) -> None:
        if self._typing is None:
            return
        servers = self._hosts.servers(room_id)
        before = self._typed.pop(room_id, set())
        if not servers:
            return
        now = {user_id for user_id in self._typing.users(room_id) if user_id.endswith(self._suffix)}
        for user_id in before ^ now:
            self._say_typing(servers, room_id, user_id, user_id in now)
        if now:
            self._typed[room_id] = now

    def _say_typing(self, servers: Iterable[str], room_id: str, user_id: str, typing: bool) -> None:
        content = {"room_id": room_id, "user_id": user_id, "typing": typing}
        self._to_all(servers, ("m.typing", room_id, user_id), "m.typing", content)

    def _type_again(self) -> None:
        for room_id, users in self._typed.items():
            for user_id in users:
                self._say_typing(self._hosts.servers(room_id), room_id, user_id, True)
        self._timer("typing", TYPING_AGAIN_SECONDS, self._type_again)

    def _route_presence(self, user_id: str) -> None:
        if user_id.endswith(self._suffix):
            self._say_presence(self._hosts.servers_of_user(user_id), user_id)

    def _say_presence(self, servers: Iterable[str], user_id: str) -> None:
        if self._presence is not None and servers:
            content = {**self._presence.content(user_id), "user_id": user_id}
            content.setdefault("last_active_ago", 0)
            self._to_all(servers, ("m.presence", user_id), "m.presence", content)

    def _present_again(self, users: list[str] | None = None) -> None:
        """Say who is still present, a part of them in each second."""
        assert self._presence is not None
        waiting = list(self._presence.present()) if users is None else users
        for user_id in filter(self._presence.is_present, waiting[:PRESENT_PER_SECOND]):
            self._route_presence(user_id)
        rest = waiting[PRESENT_PER_SECOND:]
        if rest:
            self._timer("presence", 1.0, lambda: self._present_again(rest))
        else:
            self._timer("presence", PRESENT_AGAIN_SECONDS, self._present_again)

    def _to_all(self, servers: Iterable[str], key: tuple[str, ...], type_: str, value: Any) -> None:
        for server in servers:
            lane = self._lanes.lane(server)
            if lane is not None:
                lane.put_latest(key, type_, value)
                self._lanes.look_at(lane)

    def _timer(self, name: str, delay: float, call: Callable[[], None]) -> None:
        self._timers[name] = self._clock.callLater(delay, call)
