"""Storing events that stand in states and auth chains without a place in a room's order.

Server-Server API, "Auth chain"; each is judged by the events that it cites, so that one that was rejected never enters a
state, whoever presents it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.auth import check_auth
from federation.rules.auth_events import CREATE, AuthError, check_auth_event_list
from federation.rules.event import Event
from homeserver.rooms.checking import in_order
from homeserver.rooms.room import Room, Rooms, StateKey, stored_form
from storage.log import events as event_log
from storage.log.state_map import put_nodes

CHUNK = 200
"""Events written in one turn of the reactor."""


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
            batch = self._rooms.log.begin()
            rejected: set[str] = set()
            for event in ordered[start : start + CHUNK]:
                if event_log.place_of(self._rooms.log, event.event_id) is not None:
                    continue
                cited = [self._rooms.event(event_id) for event_id in event.auth_event_ids]
                known = [found for found in cited if found is not None]
                if len(known) < len(cited):
                    continue
                flags = 0
                if not self._allowed(room, event, known, rejected):
                    flags = event_log.REJECTED
                    rejected.add(event.event_id)
                event_log.put_outlier(batch, room.meta.nid, stored_form(event, b"", b"", flags=flags))
                self._rooms.remember(event)
            self._rooms.log.append(batch).addErrback(lambda _: None)
            if len(ordered) > CHUNK:
                await deferLater(self._clock, 0)

    def _allowed(self, room: Room, event: Event, cited: list[Event], rejected: set[str]) -> bool:
        state: dict[StateKey, Event] = {(found.type, found.state_key or ""): found for found in cited}
        if room.version.room_id_is_create_hash and event.key != CREATE:
            create = self._rooms.event("$" + room.room_id[1:])
            if create is None:
                return False
            state[CREATE] = create
        try:
            check_auth_event_list(event, cited, lambda id_: id_ in rejected or self.is_rejected(id_))
            check_auth(event, state)
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
        for event_id in event_ids:
            event = self._rooms.event(event_id)
            if event is None or event.state_key is None or event.room_id != room.room_id:
                continue
            if not self.is_rejected(event_id):
                changes[(event.type, event.state_key)] = event_id
        root = b""
        keys = sorted(changes)
        for start in range(0, len(keys), 1000):
            nodes: dict[bytes, bytes] = {}
            root = room.state_map.set(root, {key: changes[key] for key in keys[start : start + 1000]}, nodes)
            batch = self._rooms.log.begin()
            put_nodes(batch, room.meta.nid, nodes)
            self._rooms.log.append(batch).addErrback(lambda _: None)
            if len(keys) > 1000:
                await deferLater(self._clock, 0)
        return root
