"""What the room engine asks other servers for. Answers are theirs: lists of unchecked objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from federation.rules.event import Event
from federation.rules.signing import SignatureError


class Verifier(Protocol):
    """Knows other servers' keys (`federation.wire.keyring.KeyRing`)."""

    async def verify_event_signatures(self, event: Event) -> None:
        """Check the signatures that an event needs (`federation.rules.checks`). Raises SignatureError."""

    async def verify_signature_of(self, event: Event, server_name: str) -> None:
        """Check one server's signature on an event, required of everybody or not. Raises SignatureError."""

    async def check_events(self, events: Sequence[Event]) -> Sequence[SignatureError | None]:
        """For each event what is wrong with its signatures, None when they are right; keys are fetched together."""


@dataclass(frozen=True, slots=True)
class PeerState:
    """The state before an event and the events that authorise it, as a peer told them: ids or whole events."""

    state: list[Any]
    auth_chain: list[Any]


class Peers(Protocol):
    """Requests to other servers. Each is bounded in time and size; MatrixError when there is no usable answer."""

    async def missing_events(
        self, server: str, room_id: str, earliest: Sequence[str], latest: Sequence[str], limit: int, min_depth: int
    ) -> list[Any]:
        """POST get_missing_events: events between the earliest and the latest."""

    async def state_ids(self, server: str, room_id: str, event_id: str) -> PeerState:
        """GET state_ids: ids of the state before an event, and of its auth chain."""

    async def state(self, server: str, room_id: str, event_id: str) -> PeerState:
        """GET state: the same as whole events."""

    async def event(self, server: str, event_id: str) -> Any:
        """GET event: one event."""

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[Any]:
        """GET event_auth: the auth chain of an event."""

    async def backfill(self, server: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[Any]:
        """GET backfill: events before the given ones, these included."""

    async def policy_signatures(
        self, server: str, pdu: Any, *, although_silent: bool
    ) -> Mapping[str, Mapping[str, Any]]:
        """POST sign: what a policy server signs an event with. What it says against it comes word for word.

        ``although_silent`` also asks one that has just not answered.
        """

    async def exchange_third_party_invite(self, server: str, room_id: str, event: Mapping[str, Any]) -> None:
        """PUT exchange_third_party_invite: let the inviting server make the invite that ``event`` describes."""

    async def timestamp_to_event(self, server: str, room_id: str, ts: int, forward: bool) -> tuple[str, int]:
        """GET timestamp_to_event: id and time of the event closest to a time in one direction."""
