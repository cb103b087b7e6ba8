"""The room engine's questions (`homeserver.rooms.peers`) put to other servers over signed calls."""

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from federation.outbound.calls import Calls, refusal
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.rooms.peers import PeerState

T = TypeVar("T")


class RemotePeers:
    """Asks other servers; whatever they refuse or fail to answer is a MatrixError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def missing_events(
        self, server: str, room_id: str, earliest: Sequence[str], latest: Sequence[str], limit: int, min_depth: int
    ) -> list[Any]:
        """POST get_missing_events: events between the earliest and the latest."""
        return await _asked(self._calls.missing_events(server, room_id, earliest, latest, limit, min_depth))

    async def state_ids(self, server: str, room_id: str, event_id: str) -> PeerState:
        """GET state_ids: ids of the state before an event, and of its auth chain."""
        answer = await _asked(self._calls.state_ids(server, room_id, event_id))
        return PeerState(list(answer.pdu_ids), list(answer.auth_chain_ids))

    async def state(self, server: str, room_id: str, event_id: str) -> PeerState:
        """GET state: the same as whole events."""
        answer = await _asked(self._calls.state(server, room_id, event_id))
        return PeerState(list(answer.pdus), list(answer.auth_chain))

    async def event(self, server: str, event_id: str) -> Any:
        """GET event: one event."""
        return await _asked(self._calls.event(server, event_id))

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[Any]:
        """GET event_auth: the auth chain of an event."""
        return await _asked(self._calls.event_auth(server, room_id, event_id))

    async def backfill(self, server: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[Any]:
        """GET backfill: events before the given ones, these included."""
        return await _asked(self._calls.backfill(server, room_id, event_ids, limit))


async def _asked(question: Awaitable[T]) -> T:
    try:
        return await question
    except (PeerUnreachable, RequestRefused) as problem:
        raise refusal(problem, "Another server could not answer") from problem
