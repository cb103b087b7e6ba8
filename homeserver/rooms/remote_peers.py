"""The room engine's questions (`homeserver.rooms.peers`) put to other servers over signed calls."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from federation.outbound.calls import Calls, refusal
from federation.rules.errors import MatrixError
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.rooms.peers import PeerState

ABOUT_SESSIONS = (
    "M_UNKNOWN_TOKEN",
    "M_MISSING_TOKEN",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
    "M_USER_DEACTIVATED",
    "M_CONSENT_NOT_GIVEN",
)
"""Errors upon which clients log out or ask their user for something."""

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

    async def policy_signatures(
        self, server: str, pdu: Any, *, although_silent: bool
    ) -> Mapping[str, Mapping[str, Any]]:
        """POST sign: what a policy server signs an event with. What it says against it comes word for word."""
        try:
            return await self._calls.policy_sign(server, pdu, although_silent)
        except RequestRefused as refused:
            raise word_for_word(refused) from refused
        except PeerUnreachable as problem:
            raise MatrixError(502, "M_UNKNOWN", "The room's policy server does not answer") from problem

    async def exchange_third_party_invite(self, server: str, room_id: str, event: Mapping[str, Any]) -> None:
        """PUT exchange_third_party_invite: let the inviting server make the invite that ``event`` describes."""
        await _asked(self._calls.exchange_third_party_invite(server, room_id, event))

    async def timestamp_to_event(self, server: str, room_id: str, ts: int, forward: bool) -> tuple[str, int]:
        """GET timestamp_to_event: id and time of the event closest to a time in one direction."""
        moment = await _asked(self._calls.timestamp_to_event(server, room_id, ts, "f" if forward else "b"))
        return moment.event_id, moment.origin_server_ts


def word_for_word(refused: RequestRefused) -> MatrixError:
    """What another server refused, as our client is told of it.

    Not where the client would take it for something about its own session, or the server has a trouble of its own.
    """
    if refused.errcode in ABOUT_SESSIONS or refused.status == 401:
        return MatrixError(403, "M_FORBIDDEN", refused.error)
    if not 400 <= refused.status < 500:
        return MatrixError(502, "M_UNKNOWN", refused.error)
    wait = {} if refused.retry_after_ms is None else {"retry_after_ms": refused.retry_after_ms}
    return MatrixError(refused.status, refused.errcode, refused.error, **wait)


async def _asked(question: Awaitable[T]) -> T:
    try:
        return await question
    except (PeerUnreachable, RequestRefused) as problem:
        raise refusal(problem, "Another server could not answer") from problem
