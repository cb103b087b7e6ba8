"""The first checks of an event from another server: format, size, signatures, content hash.

Server-Server API, "Checks performed on receipt of a PDU", steps 1 to 3. They need no room, only its version.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.canonical_json import CanonicalJSONError, decode_event
from federation.rules.checks import verified_or_redacted
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.event_format import NoContentHash
from federation.rules.room_versions import RoomVersion
from federation.rules.signing import SignatureError
from homeserver.rooms.peers import Verifier
from homeserver.rooms.remote_template import with_signatures_of

CHUNK = 50
"""Events checked in one turn of the reactor, about five milliseconds."""


class Checking:
    """Turns what a peer sent into events."""

    def __init__(self, verifier: Verifier, clock: IReactorTime) -> None:
        self._verifier = verifier
        self._clock: Any = clock

    async def event(self, pdu: Any, version: RoomVersion, room_id: str | None = None) -> Event:
        """One event, of ``room_id`` if given. Raises MatrixError for whatever is wrong with it.

        One whose content does not fit its hash comes back redacted.
        """
        event = Event.from_pdu(pdu, version)
        if room_id is not None and event.room_id != room_id:
            raise MatrixError(400, "M_BAD_JSON", "The event belongs to another room")
        await self._verifier.verify_event_signatures(event)
        return verified_or_redacted(event)

    async def signed_by(self, event: Event, pdu: Any, server: str) -> Event:
        """Our event with the signature that another server has put under it; ``pdu`` is the event as it came back.

        Of that nothing but the signatures is taken. Raises MatrixError 400 for what is no event, 502 when the server has
        not signed, or wrongly.
        """
        try:
            Event.from_pdu(pdu, event.version)
        except MatrixError as error:
            raise as_refusal(error) from None
        signed = with_signatures_of(event, pdu, server)
        try:
            await self._verifier.verify_signature_of(signed, server)
        except SignatureError as error:
            raise MatrixError(502, "M_UNKNOWN", f"{server} has not signed the event: {error.error}") from None
        return signed

    async def events(self, pdus: Sequence[Any], version: RoomVersion, room_id: str) -> dict[str, Event]:
        """Many events by id; those that are wrong are left out."""
        found: dict[str, Event] = {}
        for start in range(0, len(pdus), CHUNK):
            for event in await self.each(pdus[start : start + CHUNK], version, room_id):
                if event is not None:
                    found[event.event_id] = event
            if len(pdus) > CHUNK:
                await deferLater(self._clock, 0)
        return found

    async def each(
        self, pdus: Sequence[Any], version: RoomVersion, room_id: str, is_known: Callable[[str], bool] = lambda _: False
    ) -> list[Event | None]:
        """As many events as can be checked in one turn, None for one that is wrong. PDUs are objects or raw JSON.

        One that ``is_known``, which says it of an id, was checked before: signatures and hash are not looked at again.
        """
        events = [_shaped(pdu, version, room_id) for pdu in pdus]
        fresh = [event for event in events if event is not None and not is_known(event.event_id)]
        problems = await self._verifier.check_events(fresh)
        checked: dict[str, Event | None] = {}
        for event, problem in zip(fresh, problems, strict=True):
            if problem is None:
                checked[event.event_id] = verified_or_redacted(event)
            else:
                checked.setdefault(event.event_id, None)
        return [event and checked.get(event.event_id, event) for event in events]


def _shaped(pdu: Any, version: RoomVersion, room_id: str) -> Event | None:
    try:
        if isinstance(pdu, msgspec.Raw):
            pdu = decode_event(memoryview(pdu), version.strict_canonical_json)
        event = Event.from_pdu(pdu, version)
        return event if event.room_id == room_id else None
    except MatrixError:
        return None


def in_order(events: Iterable[Event], by_predecessors: bool = False) -> list[Event]:
    """Events after those that they cite (or, ``by_predecessors``, that they follow); circles are broken anywhere."""
    waiting = {event.event_id: event for event in events}
    ordered: list[Event] = []
    done: set[str] = set()
    for start in sorted(waiting.values(), key=lambda event: (event.depth, event.event_id)):
        stack = [(start, False)]
        while stack:
            event, expanded = stack.pop()
            if expanded:
                ordered.append(event)
                continue
            if event.event_id in done:
                continue
            done.add(event.event_id)
            stack.append((event, True))
            before = event.prev_event_ids if by_predecessors else event.auth_event_ids
            stack += [(waiting[id_], False) for id_ in before if id_ in waiting and id_ not in done]
    return ordered


def as_refusal(error: MatrixError) -> MatrixError:
    """What to answer a server whose event (of a join, leave, knock or invite) did not stand the checks.

    A wrong signature, or one that covers no content, is 403 M_FORBIDDEN (no 401: the request itself was signed rightly),
    anything else 400.
    """
    if isinstance(error, SignatureError | NoContentHash):
        return MatrixError(403, "M_FORBIDDEN", error.error)
    if isinstance(error, CanonicalJSONError):
        return MatrixError(400, "M_BAD_JSON", error.error)
    if error.status in (400, 401, 413):
        return MatrixError(400, "M_INVALID_PARAM", error.error)
    return error
