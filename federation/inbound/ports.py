"""What the endpoints for other servers need from the rest of the server."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class ReceivesPdus(Protocol):
    """Takes events in."""

    async def pdus(self, origin: str, room_id: str, pdus: Sequence[Any]) -> dict[str, str | None]:
        """Events of one room in their order: for each its id and what was wrong, None if nothing.

        Submitted on return; durable when what is submitted later is.
        """


class ReceivesEdus(Protocol):
    """Takes ephemeral messages in."""

    async def edu(self, origin: str, edu_type: str, content: Mapping[str, Any]) -> None:
        """One message; what is malformed or claims users of another server than ``origin`` is dropped."""


class Transactions(Protocol):
    """Remembers what was answered to transactions."""

    def answered(self, origin: str, txn_id: str) -> bytes | None:
        """The answer to a transaction that was processed, as JSON bytes."""

    async def remember(self, origin: str, txn_id: str, answer: bytes) -> None:
        """Keep an answer; durable on return, and with it all that was submitted before."""


class ReadsRooms(Protocol):
    """Rooms as other servers may see them. MatrixError 403 for servers that are not in the room."""

    def event(self, origin: str, event_id: str) -> dict[str, Any]:
        """One event."""

    async def event_auth(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The auth chain of an event."""

    async def state(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The state before an event."""

    async def state_ids(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The same as ids."""

    def backfill(self, origin: str, room_id: str, event_ids: Sequence[str], limit: int) -> dict[str, Any]:
        """Events and what is before them."""

    def missing_events(
        self, origin: str, room_id: str, earliest: Sequence[str], latest: Sequence[str], limit: int, min_depth: int
    ) -> dict[str, Any]:
        """Events between others."""

    def nearest(self, origin: str, room_id: str, ts: int, forward: bool) -> dict[str, Any]:
        """The event closest to a time."""


class LetsIn(Protocol):
    """The resident server's part of joining, leaving and knocking."""

    def template(
        self, origin: str, room_id: str, user_id: str, membership: str, versions: Sequence[str] | None
    ) -> dict[str, Any]:
        """An event for the user's server to sign, and the room's version."""

    async def join(
        self, origin: str, room_id: str, event_id: str, pdu: Any, omit_members: bool
    ) -> dict[str, Any]:
        """The answer of send_join."""

    async def leave(self, origin: str, room_id: str, event_id: str, pdu: Any) -> None:
        """The effect of send_leave."""

    async def knock(self, origin: str, room_id: str, event_id: str, pdu: Any) -> dict[str, Any]:
        """The answer of send_knock."""


class ExchangesInvites(Protocol):
    """Invites by e-mail or phone, once it is known whom they are for."""

    async def exchange(self, origin: str, room_id: str, pdu: Mapping[str, Any]) -> None:
        """An invite that a pending one of our users has become."""

    async def bound(self, user_id: object, invites: object) -> None:
        """A user of ours has bound an address; ``invites`` wait for it. Both as they were sent."""


class TakesInvites(Protocol):
    """Invites of our users into rooms of other servers."""

    async def invite(
        self, origin: str, room_id: str, event_id: str, pdu: Any, version_id: str, state: Sequence[Any]
    ) -> dict[str, Any]:
        """The invite's PDU with our signature, once the user has been told."""


class ListsRooms(Protocol):
    """The directory of listed rooms."""

    def public_rooms(
        self, limit: int | None, since: str | None, term: str | None, room_types: Sequence[str | None] | None
    ) -> dict[str, Any]:
        """One page."""

    def alias(self, alias: str) -> tuple[str, list[str]] | None:
        """The room behind an alias of ours, and servers that are in it."""


class KnowsUsers(Protocol):
    """Our users, their profiles and devices."""

    async def profile(self, user_id: str) -> dict[str, Any]:
        """All public fields. MatrixError 404 for who does not exist."""

    async def devices(self, user_id: str) -> dict[str, Any]:
        """The answer of user/devices."""

    async def query_keys(self, devices: dict[str, list[str]]) -> dict[str, Any]:
        """The answer of user/keys/query."""

    async def claim_keys(self, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
        """The answer of user/keys/claim."""

    async def openid_user(self, token: str) -> str | None:
        """Whose OpenID token it is."""
