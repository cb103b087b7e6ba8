"""Messages to devices (Client-Server API, "Send-to-Device messaging").

One call is one append: all inboxes and the transaction id, or nothing. A message for somebody who cannot receive it
(an unknown or deactivated account, an unknown device) leaves nothing behind.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from federation.rules.errors import MatrixError
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.lookup import server_of
from storage.log import inbox, transactions
from storage.log.append import Batch, Log

ALL_DEVICES = "*"
MAX_TYPE = 255
MAX_TRANSACTION_ID = 255

Messages = Mapping[str, Mapping[str, dict[str, Any]]]
"""User ID to device ID (or ``*``) to content."""


class RemoteInboxes(Protocol):
    """Carries messages to other servers; the queue is written in the same batch."""

    def queue(self, batch: Batch, sender: str, type_: str, messages: Messages) -> None:
        """Put messages for users of other servers into the queues of their servers."""


class NoRemoteInboxes:
    """The server does not federate: messages for other servers go nowhere."""

    def queue(self, batch: Batch, sender: str, type_: str, messages: Messages) -> None:
        """Drop them."""


class ToDevice:
    """Puts messages into the inboxes of local devices."""

    def __init__(
        self, server_name: str, log: Log, devices: DeviceDirectory, remote: RemoteInboxes | None = None
    ) -> None:
        self._server_name = server_name
        self._log = log
        self._devices = devices
        self._remote = remote or NoRemoteInboxes()

    async def send(self, sender: str, device_id: str, type_: str, txn_id: str, messages: Messages) -> None:
        """Deliver once for each transaction id of the sending device, also across a restart.

        Raises MatrixError 400 for an event type or transaction id that is too long.
        """
        if not 0 < len(type_.encode()) <= MAX_TYPE or not 0 < len(txn_id.encode()) <= MAX_TRANSACTION_ID:
            raise MatrixError(400, "M_INVALID_PARAM", "Event type and transaction id have 1 to 255 bytes")
        scope = f"sendToDevice {type_}"
        local = {user_id: part for user_id, part in messages.items() if self._is_local(user_id)}
        await self._devices.load(local)
        # From here to the append nothing waits, so that the same transaction id cannot come in between.
        log = self._log
        if transactions.get_transaction(log, sender, device_id, scope, txn_id) is not None:
            await log.append(log.begin())
            return
        batch = log.begin()
        position = self._fill(batch, sender, type_, local)
        remote = {user_id: part for user_id, part in messages.items() if user_id not in local}
        if remote:
            self._remote.queue(batch, sender, type_, remote)
        transactions.put_transaction(batch, sender, device_id, scope, txn_id, b"{}", position)
        await log.append(batch)

    def receive(self, batch: Batch, sender: str, type_: str, messages: Messages) -> None:
        """Messages from another server for local devices, already loaded into the directory."""
        self._fill(batch, sender, type_, {user: part for user, part in messages.items() if self._is_local(user)})

    def _is_local(self, user_id: str) -> bool:
        return server_of(user_id) == self._server_name

    def _fill(self, batch: Batch, sender: str, type_: str, messages: Messages) -> int:
        """Put each message into its inboxes; returns a position for the transaction."""
        head = b'{"type":%s,"sender":%s,"content":' % (orjson.dumps(type_), orjson.dumps(sender))
        position = self._log.position
        for user_id, by_device in messages.items():
            existing = self._devices.known(user_id) or ()
            everywhere = by_device.get(ALL_DEVICES)
            if everywhere is not None:
                message = head + orjson.dumps(everywhere) + b"}"
                for device_id in sorted(existing):
                    if device_id not in by_device:
                        position = inbox.put_message(batch, user_id, device_id, message)
            for device_id, content in by_device.items():
                if device_id in existing:
                    message = head + orjson.dumps(content) + b"}"
                    position = inbox.put_message(batch, user_id, device_id, message)
        return position
