"""Redactions by other servers: applied when their sender had the right, remembered when they come before their target.

Room version 3, "Handling redactions": the right is judged by the state before the redaction, so that every server comes
to the same answer whatever came first.
"""

from federation.rules.auth_events import CREATE, POWER_LEVELS
from federation.rules.checks import may_apply_redaction, redacted_event
from federation.rules.event import Event
from federation.rules.power_levels import PowerLevels
from homeserver.rooms.room import Room, Rooms, relation_of
from storage.log import events as event_log
from storage.log.append import Batch
from storage.log.redactions_ahead import drop_redactions, put_redaction, redactions_of


class Redacting:
    """Applies redactions within the turn that places an event.

    One that does not apply, or not yet, is kept from clients: they would take it at its word.
    """

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def is_withheld(self, room: Room, event: Event, before: bytes) -> bool:
        """Whether clients are not told of an event: a redaction without a target that it may redact.

        In room versions 1 and 2 the auth rules have judged it, and it is an event like any other.
        """
        if event.type != "m.room.redaction" or event.redacts is None or event.version.redaction_rule:
            return False
        target = event_log.event_by_id(self._rooms.log, event.redacts)
        return target is None or target.seq is None or not self._may(room, event, before, target)

    def arrived(self, batch: Batch, room: Room, event: Event, before: bytes) -> None:
        """An accepted event took its place: redact what it redacts; ``before`` is the state before it."""
        target_id = event.redacts
        if event.type != "m.room.redaction" or target_id is None:
            return
        target = event_log.event_by_id(self._rooms.log, target_id)
        if target is None or target.seq is None:
            put_redaction(batch, target_id, event.event_id)
        else:
            self._apply(batch, room, event, before, target)

    def overtaken(self, batch: Batch, room: Room, record: event_log.EventRecord) -> None:
        """An event took its place: apply what had come before it."""
        waiting = redactions_of(batch, record.event_id)
        if not waiting:
            return
        drop_redactions(batch, record.event_id)
        for redaction_id in waiting:
            found = event_log.event_by_id(self._rooms.log, redaction_id)
            redaction = self._rooms.event(redaction_id)
            if found is None or redaction is None:
                continue
            if self._apply(batch, room, redaction, found.state_before, record):
                shown = event_log.as_new(found)
                shown.flags &= ~event_log.SOFT_FAILED
                event_log.rewrite_record(batch, found, shown)
                return

    def _apply(
        self, batch: Batch, room: Room, redaction: Event, before: bytes, target: event_log.EventRecord
    ) -> bool:
        if target.redacted_by is not None or not self._may(room, redaction, before, target):
            return False
        original = Event.from_json(target.pdu, room.version, event_id=target.event_id)
        pruned = redacted_event(original)
        event_log.redact_record(
            batch, target, pruned.json, pruned.spans, redaction.event_id, relation_of(original)
        )
        self._rooms.forget_event(room, target.event_id)
        return True

    def _may(self, room: Room, redaction: Event, before: bytes, target: event_log.EventRecord) -> bool:
        if target.room_id != room.room_id or target.type == "m.room.create":
            return False
        original = Event.from_json(target.pdu, room.version, event_id=target.event_id)
        levels = self._levels(room, before)
        return levels is not None and may_apply_redaction(
            redaction, original, levels.user(redaction.sender), int(levels.action("redact"))
        )

    def _levels(self, room: Room, root: bytes) -> PowerLevels | None:
        create_id = room.state_map.get(root, *CREATE) if root else None
        create = None if create_id is None else self._rooms.event(create_id)
        if create is None:
            return None
        levels_id = room.state_map.get(root, *POWER_LEVELS)
        return PowerLevels.of(create, None if levels_id is None else self._rooms.event(levels_id), room.version)
