"""Saying something in a room: message events, state events and redactions.

Client-Server API, "Sending events to a room" and "Redactions".
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.canonical_json import encode_lax
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_alias, server_name_of
from federation.rules.redaction import redact
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.room import Draft, Room, Rooms, relation_of
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
        return await self._once(
            requester, scope, txn_id, room_id, Draft(requester.user_id, type_, content, timestamp=timestamp)
        )

    async def redact(
        self, requester: Requester, room_id: str, event_id: str, reason: str | None, txn_id: str | None
    ) -> str:
        """Append a redaction of ``event_id``; the target's content is gone in the same commit.

        Raises MatrixError 403 if the user may neither redact others' events nor wrote this one, 404 if there is no such
        event in this room.
        """
        room = self._rooms.get(room_id)
        target = event_log.event_by_id(self._rooms.log, event_id)
        if target is None or target.room_id != room_id:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such event in this room")
        if room.membership(requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        if target.sender != requester.user_id and not may_redact(room, requester.user_id):
            raise MatrixError(403, "M_FORBIDDEN", "You may not redact what others have sent")
        if target.type == "m.room.create":
            raise MatrixError(403, "M_FORBIDDEN", "The create event cannot be redacted")
        content: dict[str, Any] = {} if reason is None else {"reason": reason}
        draft = self.redaction_draft(room, requester.user_id, event_id, content)
        return await self._once(requester, f"redact/{room_id}/{event_id}", txn_id, room_id, draft)

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
        if type_ == "m.room.canonical_alias":
            self._check_aliases(room, content)
        draft = Draft(requester.user_id, type_, content, state_key=state_key, timestamp=timestamp)
        return await self.append(room, draft)

    async def append(self, room: Room, draft: Draft) -> str:
        """One turn: decide, stage, append; answers when it is durable."""
        event = room.decide(draft)
        batch = self._rooms.log.begin()
        room.stage(batch, event)
        self._apply_redaction(batch, room, event)
        await self._rooms.log.append(batch)
        return event.event_id

    async def _once(
        self, requester: Requester, scope: str, txn_id: str | None, room_id: str, draft: Draft
    ) -> str:
        log = self._rooms.log
        device = requester.device_id or ""
        if txn_id is not None:
            if not 0 < len(txn_id.encode()) <= MAX_TRANSACTION_ID:
                raise MatrixError(400, "M_INVALID_PARAM", "A transaction id has 1 to 255 bytes")
            earlier = transactions.get_transaction(log, requester.user_id, device, scope, txn_id)
            if earlier is not None:
                await self._rooms.settled()
                return earlier.decode()
        room = self._rooms.get(room_id)
        event = room.decide(draft)
        batch = log.begin()
        note = room.stage(batch, event, txn=None if txn_id is None else (device, txn_id))
        if txn_id is not None:
            transactions.put_transaction(
                batch, requester.user_id, device, scope, txn_id, event.event_id.encode(), note.record.position
            )
        self._apply_redaction(batch, room, event)
        await log.append(batch)
        return event.event_id

    def _apply_redaction(self, batch: Batch, room: Room, event: Event) -> None:
        if event.type != "m.room.redaction" or event.redacts is None:
            return
        apply_redaction(self._rooms, batch, room, event)

    def _check_aliases(self, room: Room, content: Mapping[str, Any]) -> None:
        """Every alias that a canonical alias event adds must exist and point to this room (m.room.canonical_alias)."""
        before = room.content("m.room.canonical_alias")
        known = {before.get("alias"), *(before.get("alt_aliases") or [])}
        alternatives = content.get("alt_aliases")
        if alternatives is not None and not isinstance(alternatives, list):
            raise MatrixError(400, "M_BAD_JSON", "alt_aliases is a list of aliases")
        for alias in [content.get("alias"), *(alternatives or [])]:
            if alias is None or alias == "" or (isinstance(alias, str) and alias in known):
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
    target = event_log.event_by_id(rooms.log, event.redacts)
    if target is None or target.room_id != room.room_id or target.redacted_by is not None:
        return False
    if target.type == "m.room.create":
        return False
    same_server = server_name_of(target.sender) == server_name_of(event.sender)
    if not same_server and not may_redact(room, event.sender):
        return False
    original = Event.from_json(target.pdu, room.version, event_id=target.event_id)
    pruned = Event.from_pdu(redact(original.pdu, room.version), room.version, event_id=target.event_id)
    event_log.redact_record(batch, target, pruned.json, pruned.spans, event.event_id, relation_of(original))
    rooms.forget_event(room, target.event_id)
    return True
