"""What the queues need from the rest of the server."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol


class TransactionSender(Protocol):
    """The signed client, as far as transactions go (Server-Server API, "Transactions")."""

    async def send_transaction(self, server: str, txn_id: str, body: bytes) -> Mapping[str, Any]:
        """PUT a transaction, whose body is canonical JSON, and return the answer.

        Raises PeerUnreachable or RequestRefused of ``federation.wire``.
        """


class Hosts(Protocol):
    """Which other servers are in which rooms now."""

    def servers(self, room_id: str) -> Mapping[str, int]:
        """Other servers with joined members in a room, and how many."""

    def joined_since(self, server: str, room_id: str) -> int:
        """Position of the first of the memberships by which a server is in a room now; 0 if none is known."""

    def servers_of_user(self, user_id: str) -> Collection[str]:
        """Other servers that share a room with a user."""

    def servers_met(self, user_id: str, room_id: str) -> Collection[str]:
        """Other servers in a room that share no other room with a user."""

    def our_users(self, room_id: str) -> Iterable[str]:
        """Users of this server who are joined to a room."""


class TypingUsers(Protocol):
    """Who is typing."""

    def users(self, room_id: str) -> list[str]:
        """Users typing in a room now, those of other servers too."""


class PresenceOf(Protocol):
    """How present somebody is."""

    def content(self, user_id: str) -> Mapping[str, Any]:
        """``presence``, ``last_active_ago``, ``currently_active``, ``status_msg`` as far as known."""

    def is_present(self, user_id: str) -> bool:
        """Whether the user is not offline."""

    def present(self) -> Iterable[str]:
        """Users of this server who are not offline."""


class DeviceUpdates(Protocol):
    """What other servers are told about our users' devices and keys."""

    async def updates(self, user_id: str, device_id: str) -> list[tuple[str, dict[str, Any]]]:
        """EDU types and contents for a change of one device, or with ``device_id`` empty of the user's keys.

        ``m.device_list_update`` comes without ``stream_id`` and ``prev_id``.
        """
