"""To-device messages for users of other servers: one EDU for each server, in its queue until it is accepted."""

from collections.abc import Callable

from federation.rules.canonical_json import encode_lax
from federation.rules.ids import is_valid_server_name
from homeserver.keys.lookup import server_of
from homeserver.keys.to_device import Messages
from storage.log import destinations
from storage.log.append import Batch

MAX_SERVERS = 500
"""Servers that one request may put messages into the queues of."""


class RemoteQueues:
    """The port `RemoteInboxes` over the log's tables.

    Server-Server API, "Send-to-device messaging". ``token`` gives a message id that was never given before.
    """

    def __init__(self, token: Callable[[], str], may_send: Callable[[str], bool] = lambda server: True) -> None:
        self._token = token
        self._may_send = may_send

    def queue(self, batch: Batch, sender: str, type_: str, messages: Messages) -> None:
        """Put messages for users of other servers into the queues of their servers."""
        by_server: dict[str, dict[str, object]] = {}
        for user_id, devices in messages.items():
            server = server_of(user_id)
            if server in by_server or len(by_server) < MAX_SERVERS:
                by_server.setdefault(server, {})[user_id] = devices
        for server, of_server in by_server.items():
            if not is_valid_server_name(server) or not self._may_send(server):
                continue
            content = {"sender": sender, "type": type_, "message_id": self._token()[:32], "messages": of_server}
            destinations.put_message(batch, server, encode_lax(content))
