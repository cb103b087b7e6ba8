"""Ephemeral messages from other servers: typing, receipts, presence, to-device messages, changes of devices and keys.

Server-Server API, "EDUs" and the sections of each type. Every type is about users of the server that sent it: what claims
others is dropped, and the room's access list holds for them as for events.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id, server_name_of
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.to_device import MAX_TRANSACTION_ID, MAX_TYPE, Messages, ToDevice
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.servers import Servers
from storage.log import events as event_log
from storage.log import transactions
from storage.log.append import Log
from storage.log.receipts import Receipt, put_receipt, receipt_of

TYPING_TIMEOUT_MS = 60_000
"""A typing notification of another server ends by itself, should its end get lost."""
MAX_RECEIPTS = 500
MAX_PRESENCES = 500
MAX_STATUS = 4096
MAX_TARGETS = 1000
PRESENCES = ("online", "unavailable", "offline")


class TypingList(Protocol):
    """Who types where (`homeserver.ephemeral.typing.Typing`)."""

    def start(self, room_id: str, user_id: str, timeout_ms: int = TYPING_TIMEOUT_MS) -> None:
        """A user types."""

    def stop(self, room_id: str, user_id: str) -> None:
        """A user stopped."""


class RemotePresence(Protocol):
    """Takes what another server says about the presence of its users."""

    def update(
        self, user_id: str, state: str, last_active_ago: int | None, currently_active: bool, status: str | None
    ) -> None:
        """The presence of a user of another server; ``last_active_ago`` in milliseconds."""


class DeviceCopies(Protocol):
    """The copy of other servers' device lists (`homeserver.keys.peer_devices.PeerDevices`). MatrixError for bad ones."""

    def update(self, user_id: str, content: Mapping[str, Any]) -> None:
        """An `m.device_list_update`."""

    def signing_keys(self, user_id: str, content: Mapping[str, Any]) -> None:
        """An `m.signing_key_update`."""


class PeerEdus:
    """Takes ephemeral messages in; see `federation.inbound.ports.ReceivesEdus`."""

    def __init__(
        self,
        server_name: str,
        log: Log,
        rooms: Rooms,
        servers: Servers,
        now_ms: Callable[[], int],
        typing: TypingList | None = None,
        presence: RemotePresence | None = None,
        to_device: ToDevice | None = None,
        devices: DeviceDirectory | None = None,
        device_copies: DeviceCopies | None = None,
    ) -> None:
        self._server_name = server_name
        self._log = log
        self._rooms = rooms
        self._servers = servers
        self._now_ms = now_ms
        self._typing = typing
        self._presence = presence
        self._to_device = to_device
        self._devices = devices
        self._device_copies = device_copies
        self._kinds: Mapping[str, Callable[[str, Mapping[str, Any]], Awaitable[None]]] = {
            "m.typing": self._on_typing,
            "m.receipt": self._on_receipt,
            "m.presence": self._on_presence,
            "m.direct_to_device": self._on_to_device,
            "m.device_list_update": self._on_device_update,
            "m.signing_key_update": self._on_signing_keys,
        }

    async def edu(self, origin: str, edu_type: str, content: Mapping[str, Any]) -> None:
        """One message; unknown types are ignored. MatrixError for what is malformed or not the origin's to say."""
        handler = self._kinds.get(edu_type)
        if handler is not None:
            await handler(origin, content)

    def _own(self, origin: str, user_id: object) -> str:
        """A user id of the server that speaks. MatrixError otherwise."""
        if not isinstance(user_id, str) or not is_valid_user_id(user_id) or server_name_of(user_id) != origin:
            raise MatrixError(403, "M_FORBIDDEN", "Not a user of the sending server")
        return user_id

    def _room(self, origin: str, room_id: object) -> Room | None:
        room = self._rooms.find(room_id) if isinstance(room_id, str) else None
        if room is None or not room.meta.last_seq or not self._servers.allowed(origin, room):
            return None
        return room

    async def _on_typing(self, origin: str, content: Mapping[str, Any]) -> None:
        user_id = self._own(origin, content.get("user_id"))
        room = self._room(origin, content.get("room_id"))
        if room is None or self._typing is None or room.membership(user_id) != "join":
            return
        if content.get("typing") is True:
            self._typing.start(room.room_id, user_id, TYPING_TIMEOUT_MS)
        else:
            self._typing.stop(room.room_id, user_id)

    async def _on_receipt(self, origin: str, content: Mapping[str, Any]) -> None:
        left = MAX_RECEIPTS
        batch = self._log.begin()
        for room_id, by_type in content.items():
            room = self._room(origin, room_id)
            if room is None or not isinstance(by_type, dict):
                continue
            receipts = by_type.get("m.read")
            for user_id, receipt in receipts.items() if isinstance(receipts, dict) else ():
                left -= 1
                if left < 0:
                    break
                try:
                    self._own(origin, user_id)
                except MatrixError:
                    continue
                if isinstance(receipt, dict) and room.membership(user_id) == "join":
                    self._put_receipt(batch, room.room_id, user_id, receipt)
        if batch.entries:
            await self._log.append(batch)

    def _put_receipt(self, batch: event_log.Batch, room_id: str, user_id: str, receipt: Mapping[str, Any]) -> None:
        data, ids = receipt.get("data"), receipt.get("event_ids")
        data = data if isinstance(data, dict) else {}
        thread = data.get("thread_id", "")
        ts = data.get("ts")
        if not isinstance(ids, list) or not isinstance(thread, str) or len(thread) > 255:
            return
        for event_id in ids[:10]:
            record = event_log.event_by_id(self._log, event_id) if isinstance(event_id, str) else None
            if record is None or record.seq is None or record.room_id != room_id:
                continue
            former = receipt_of(batch, room_id, user_id, "m.read", thread)
            if former is None or former.seq < record.seq:
                when = ts if type(ts) is int and 0 <= ts < 2**53 else self._now_ms()
                put_receipt(
                    batch, Receipt(room_id, user_id, "m.read", thread, record.event_id, record.seq, when), private=False
                )

    async def _on_presence(self, origin: str, content: Mapping[str, Any]) -> None:
        pushes = content.get("push")
        if self._presence is None or not isinstance(pushes, list):
            return
        for push in pushes[:MAX_PRESENCES]:
            if not isinstance(push, dict) or push.get("presence") not in PRESENCES:
                continue
            try:
                user_id = self._own(origin, push.get("user_id"))
            except MatrixError:
                continue
            ago, status = push.get("last_active_ago"), push.get("status_msg")
            self._presence.update(
                user_id,
                push["presence"],
                ago if type(ago) is int and 0 <= ago < 2**53 else None,
                push.get("currently_active") is True,
                status[:MAX_STATUS] if isinstance(status, str) else None,
            )

    async def _on_to_device(self, origin: str, content: Mapping[str, Any]) -> None:
        sender = self._own(origin, content.get("sender"))
        type_, message_id, messages = content.get("type"), content.get("message_id"), content.get("messages")
        if not isinstance(type_, str) or not isinstance(message_id, str) or not isinstance(messages, dict):
            raise MatrixError(400, "M_BAD_JSON", "Not a message to devices")
        if not 0 < len(type_.encode()) <= MAX_TYPE or not 0 < len(message_id.encode()) <= MAX_TRANSACTION_ID:
            raise MatrixError(400, "M_INVALID_PARAM", "Type and message id have 1 to 255 bytes")
        if self._to_device is None or self._devices is None:
            return
        local = self._local(messages)
        await self._devices.load(local)
        if transactions.get_transaction(self._log, origin, "", "m.direct_to_device", message_id) is not None:
            return
        batch = self._log.begin()
        self._to_device.receive(batch, sender, type_, local)
        transactions.put_transaction(
            batch, origin, "", "m.direct_to_device", message_id, b"", self._log.position
        )
        await self._log.append(batch)

    def _local(self, messages: Mapping[str, Any]) -> Messages:
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for user_id, by_device in list(messages.items())[:MAX_TARGETS]:
            if server_name_of(user_id) != self._server_name or not isinstance(by_device, dict):
                continue
            found[user_id] = {name: body for name, body in by_device.items() if isinstance(body, dict)}
        return found

    async def _on_device_update(self, origin: str, content: Mapping[str, Any]) -> None:
        user_id = self._own(origin, content.get("user_id"))
        if self._device_copies is not None:
            self._device_copies.update(user_id, content)

    async def _on_signing_keys(self, origin: str, content: Mapping[str, Any]) -> None:
        user_id = self._own(origin, content.get("user_id"))
        if self._device_copies is not None:
            self._device_copies.signing_keys(user_id, content)
