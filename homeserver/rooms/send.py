"""Saying something in a room: message events, state events and redactions.

Client-Server API, "Sending events to a room" and "Redactions".
"""

from collections.abc import Callable, Mapping
from typing import Any

from federation.rules.canonical_json import encode_lax
from federation.rules.checks import redacted_event
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_alias, server_name_of
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import append_event, asks_first
from homeserver.rooms.guests import remove_guests
from homeserver.rooms.notes import EventNote
from homeserver.rooms.room import Draft, Room, Rooms, relation_of
from homeserver.rooms.state_checks import check_state_content
from homeserver.web.call import Requester
from storage.log import events as event_log
from storage.log import transactions
from storage.log.append import Batch

MAX_TRANSACTION_ID = 255
"""Bytes of UTF-8; longer transaction ids would not fit a key of the log."""


class Send:
    """Sends on behalf of local users."""

    def __init__(self, rooms: Rooms, aliases: Aliases) -> None:
        self._rooms = rooms
        self._aliases = aliases

    async def message(
        self,
        requester: Requester,
        room_id: str,
        type_: str,
        content: Mapping[str, Any],
        txn_id: str | None,
        timestamp: int | None = None,
    ) -> str:
        """Append a message event and return its id once it is durable.

        The same ``txn_id`` from the same device gives the first answer again (also after a restart). Raises
        MatrixError 403 if the user may not, 404 if the room is unknown, 413 if the event is too large.
        """
        scope = f"send/{room_id}/{type_}"
        earlier = self._earlier(requester, scope, txn_id)
        if earlier is not None:
            return await self._again(earlier)
        draft = Draft(requester.user_id, type_, content, timestamp=timestamp)
        return await self._append(self._rooms.get(room_id), draft, requester, scope, txn_id)

    async def redact(
        self, requester: Requester, room_id: str, event_id: str, reason: str | None, txn_id: str | None
    ) -> str:
        """Append a redaction of ``event_id``; the target's content is gone in the same commit.

        Raises MatrixError 403 if the user may neither redact others' events nor wrote this one, 404 if there is no such
        event, 400 if it is another room's.
        """
        scope = f"redact/{room_id}/{event_id}"
        earlier = self._earlier(requester, scope, txn_id)
        if earlier is not None:
            return await self._again(earlier)
        room = self._rooms.get(room_id)
        if room.membership(requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        target = event_log.event_by_id(self._rooms.log, event_id)
        if target is None:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such event in this room")
        if target.room_id != room_id:
            raise MatrixError(400, "M_INVALID_PARAM", "The event is not of this room")
        if target.sender != requester.user_id and not may_redact(room, requester.user_id):
            raise MatrixError(403, "M_FORBIDDEN", "You may not redact what others have sent")
        if target.type == "m.room.create":
            raise MatrixError(403, "M_FORBIDDEN", "The create event cannot be redacted")
        content: dict[str, Any] = {} if reason is None else {"reason": reason}
        draft = self.redaction_draft(room, requester.user_id, event_id, content)
        return await self._append(room, draft, requester, scope, txn_id)

    def redaction_draft(self, room: Room, sender: str, event_id: str, content: Mapping[str, Any]) -> Draft:
        """A redaction in the shape of the room's version: ``redacts`` beside the content or, from 11 on, inside it."""
        if room.version.redacts_in_content:
            return Draft(sender, "m.room.redaction", {**content, "redacts": event_id})
        return Draft(sender, "m.room.redaction", content, redacts=event_id)

    async def state(
        self,
        requester: Requester,
        room_id: str,
        type_: str,
        state_key: str,
        content: Mapping[str, Any],
        timestamp: int | None = None,
    ) -> str:
        """Append a state event; setting what already is answers with the event that set it.

        Raises MatrixError as `message` does, 400 M_BAD_ALIAS / M_INVALID_PARAM for an alias that does not point here.
        """
        room = self._rooms.get(room_id)
        current = room.state(type_, state_key)
        if (
            current is not None
            and current.sender == requester.user_id
            and encode_lax(current.content) == encode_lax(dict(content))
        ):
            await self._rooms.settled()
            return current.event_id
        check_state_content(type_, state_key, content, room_id)
        if type_ == "m.room.canonical_alias" and state_key == "":
            self._check_aliases(room, content)
        draft = Draft(requester.user_id, type_, content, state_key=state_key, timestamp=timestamp)
        return await self._append(room, draft, requester, "", None)

    def _earlier(self, requester: Requester, scope: str, txn_id: str | None) -> bytes | None:
        """What this transaction was answered before. MatrixError 400 for an id that no key holds."""
        if txn_id is None:
            return None
        if not 0 < len(txn_id.encode()) <= MAX_TRANSACTION_ID:
            raise MatrixError(400, "M_INVALID_PARAM", f"A transaction id has 1 to {MAX_TRANSACTION_ID} bytes")
        return transactions.get_transaction(
            self._rooms.log, requester.user_id, requester.device_id or "", scope, txn_id
        )

    async def _again(self, earlier: bytes) -> str:
        """Answer a repeated request, once what the first one did is durable."""
        await self._rooms.settled()
        return earlier.decode()

    async def _append(
        self, room: Room, draft: Draft, requester: Requester, scope: str, txn_id: str | None
    ) -> str:
        """One turn: decide, stage, append; answers when it is durable. A policy server is asked before that turn."""
        policed = self._rooms.policed
        if policed is None or not asks_first(self._rooms, room, draft):
            return await self._append_now(room, draft, requester, scope, txn_id, leaves=remove_guests)

        async def once() -> str:
            # Repeated while the policy server was still asked for the first: that one has been sent by now.
            earlier = self._earlier(requester, scope, txn_id)
            if earlier is not None:
                return await self._again(earlier)
            return await self._append_now(self._rooms.get(room.room_id), draft, requester, scope, txn_id)

        return await policed.turns.take(f"{room.room_id} {draft.sender}", once)

    async def _append_now(
        self,
        room: Room,
        draft: Draft,
        requester: Requester,
        scope: str,
        txn_id: str | None,
        leaves: Callable[[Batch, Room, Event], None] | None = None,
    ) -> str:
        device = requester.device_id or ""

        def also(batch: Batch, room: Room, event: Event, note: EventNote) -> None:
            if txn_id is not None:
                answer, position = event.event_id.encode(), note.record.position
                transactions.put_transaction(
                    batch, requester.user_id, device, scope, txn_id, answer, position
                )
            if event.type == "m.room.redaction":
                apply_redaction(self._rooms, batch, room, event)
            elif event.type == "m.room.guest_access" and leaves is not None:
                leaves(batch, room, event)

        txn = None if txn_id is None else (device, txn_id)
        return (await append_event(self._rooms, room, draft, txn=txn, also=also)).event_id

    def _check_aliases(self, room: Room, content: Mapping[str, Any]) -> None:
        """Every alias that a canonical alias event adds must exist and point to this room (m.room.canonical_alias)."""
        before = room.content("m.room.canonical_alias")
        earlier = before.get("alt_aliases")
        known = [before.get("alias"), *(earlier if isinstance(earlier, list) else ())]
        alternatives = content.get("alt_aliases")
        if alternatives is not None and not isinstance(alternatives, list):
            raise MatrixError(400, "M_BAD_JSON", "alt_aliases is a list of aliases")
        for alias in [content.get("alias"), *(alternatives or [])]:
            if alias is None or alias == "" or alias in known:
                continue
            if not isinstance(alias, str) or not is_valid_room_alias(alias):
                raise MatrixError(400, "M_INVALID_PARAM", "Not a room alias")
            if server_name_of(alias) == self._rooms.server_name and self._aliases.room_of(alias) != room.room_id:
                raise MatrixError(400, "M_BAD_ALIAS", f"{alias} does not point to this room")


def may_redact(room: Room, user_id: str) -> bool:
    """Whether the user may redact what others have sent."""
    levels = room.power_levels
    return levels.user(user_id) >= levels.action("redact")


def apply_redaction(rooms: Rooms, batch: Batch, room: Room, event: Event) -> bool:
    """Rewrite the stored form of what ``event`` redacts, if its sender has the right to it; says whether it did.

    Server-Server API, "Redactions": the sender of the redaction has the power level for it, or is of the same server as
    the sender of the target.
    """
    if event.redacts is None or event.redacts == event.event_id:
        return False
    # Read through the batch: where the event was placed like one of another server, it has been applied already.
    target = event_log.event_by_id(batch, event.redacts)
    if target is None or target.room_id != room.room_id or target.redacted_by is not None:
        return False
    if target.type == "m.room.create":
        return False
    same_server = server_name_of(target.sender) == server_name_of(event.sender)
    if not same_server and not may_redact(room, event.sender):
        return False
    original = Event.from_json(target.pdu, room.version, event_id=target.event_id)
    pruned = redacted_event(original)
    event_log.redact_record(batch, target, pruned.json, pruned.spans, event.event_id, relation_of(original))
    rooms.forget_event(room, target.event_id)
    return True
