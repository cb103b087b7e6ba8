"""Storing events that stand in states and auth chains without a place in a room's order.

Server-Server API, "Auth chain"; each is judged by the events that it cites, so that one that was rejected never enters a
state, whoever presents it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.auth import check_citations
from federation.rules.auth_events import AuthError
from federation.rules.event import Event
from homeserver.rooms.checking import in_order
from homeserver.rooms.room import Room, Rooms, StateKey, stored_form
from storage.log import events as event_log
from storage.log.state_map import walk_order

CHUNK = 200
"""Events written in one turn of the reactor."""
STATE_CHUNK = 500
"""Pieces of state that are put into a state in one turn."""


class Outliers:
    """Keeps checked events that a peer told with a state or an auth chain."""

    def __init__(self, rooms: Rooms, clock: IReactorTime) -> None:
        self._rooms = rooms
        self._clock: Any = clock

    async def keep(self, room: Room, events: Mapping[str, Event]) -> None:
        """Store what is not stored yet, in the order of the auth graph; what the rules refuse is marked rejected.

        Events that cite others which are neither here nor among them are left out.
        """
        ordered = in_order(events.values())
        for start in range(0, len(ordered), CHUNK):
            self._store(room, ordered[start : start + CHUNK])
            if len(ordered) > CHUNK:
                await deferLater(self._clock, 0)

    def store(self, room: Room, events: Mapping[str, Event]) -> dict[str, Event]:
        """`keep` in one turn; gives back those that were left out."""
        return self._store(room, in_order(events.values()))

    def _store(self, room: Room, ordered: Iterable[Event]) -> dict[str, Event]:
        early: dict[str, Event] = {}
        stored: dict[str, Event] = {}
        rejected: dict[str, bool] = {}

        def find(event_id: str) -> Event | None:
            return stored.get(event_id) or self._rooms.event(event_id)

        batch = self._rooms.log.begin()
        for event in ordered:
            if event_log.place_of(self._rooms.log, event.event_id) is not None:
                continue
            cited = [find(event_id) for event_id in event.auth_event_ids]
            known = [found for found in cited if found is not None]
            if len(known) < len(cited):
                early[event.event_id] = event
                continue
            for event_id in event.auth_event_ids:
                if event_id not in rejected:
                    rejected[event_id] = self.is_rejected(event_id)
            allowed = self._allowed(event, known, find, rejected)
            form = stored_form(event, b"", b"", flags=0 if allowed else event_log.REJECTED)
            event_log.put_outlier(batch, room.meta.nid, form)
            stored[event.event_id], rejected[event.event_id] = event, not allowed
        self._rooms.log.append(batch).addErrback(lambda _: None)
        return early

    def _allowed(
        self, event: Event, cited: list[Event], find: Callable[[str], Event | None], rejected: Mapping[str, bool]
    ) -> bool:
        create = find("$" + event.room_id[1:]) if event.version.room_id_is_create_hash else None
        try:
            check_citations(event, cited, create, rejected.__getitem__)
        except AuthError:
            return False
        return True

    def is_rejected(self, event_id: str) -> bool:
        """Whether a stored event failed authorisation."""
        record = event_log.event_by_id(self._rooms.log, event_id)
        return record is not None and record.rejected

    async def state_of(self, room: Room, event_ids: Iterable[str]) -> bytes:
        """Root of the state that stored events make; rejected and unknown ones and such as are no state are left out."""
        changes: dict[StateKey, str | None] = {}
        for number, event_id in enumerate(event_ids, 1):
            record = event_log.event_by_id(self._rooms.log, event_id)
            if record is not None and not record.rejected and record.room_id == room.room_id:
                state_key = record.state_key
                if state_key is not None:
                    changes[(record.type, state_key)] = event_id
            if number % STATE_CHUNK == 0:
                await deferLater(self._clock, 0)
        root = b""
        keys = sorted(changes, key=lambda key: (key[0], walk_order(key[1])))
        for start in range(0, len(keys), STATE_CHUNK):
            batch = self._rooms.log.begin()
            root = room.change_state(batch, root, {key: changes[key] for key in keys[start : start + STATE_CHUNK]})
            self._rooms.log.append(batch).addErrback(lambda _: None)
            if len(keys) > STATE_CHUNK:
                await deferLater(self._clock, 0)
        return root
