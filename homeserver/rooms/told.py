"""Taking in a state and its auth chain as a peer tells them, tens of thousands of events in one answer.

The answer stays the bytes that came; of these a part is parsed, checked, stored and let go in each turn. So what a large room
takes in memory is its answer, whose size is limited, and not the many times larger objects that its events are.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from federation.rules.auth_events import CREATE
from federation.rules.event import Event
from federation.rules.room_versions import RoomVersion
from homeserver.rooms.checking import Checking
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.room import Room, Rooms
from storage.log import events as event_log

PART = 50
"""Events that are taken in in one turn of the reactor, about six milliseconds."""


class _Sketch(msgspec.Struct):
    """What says where to begin with an event."""

    depth: int
    type: str


class ToldStates:
    """Takes states in that other servers tell."""

    def __init__(self, rooms: Rooms, checking: Checking, outliers: Outliers, clock: IReactorTime) -> None:
        self._rooms = rooms
        self._checking = checking
        self._outliers = outliers
        self._clock: Any = clock

    async def creates(self, state: Sequence[msgspec.Raw], version: RoomVersion, room_id: str) -> list[Event]:
        """The create events that are among the events of a state and stand the first checks."""
        named = [raw for raw in state if (sketch := _sketch(raw)) is not None and sketch.type == CREATE[0]]
        found = await self._checking.events(named, version, room_id)
        return [event for event in found.values() if event.key == CREATE]

    async def take(
        self, room: Room, state: Sequence[msgspec.Raw], auth_chain: Sequence[msgspec.Raw], without: str = ""
    ) -> list[str]:
        """Check and store what is not stored yet, but for the event ``without``; the ids of the events of the state.

        What the rules refuse is stored as rejected, whatever else is wrong is left out.
        """
        ids: list[str] = []
        early: dict[str, Event] = {}
        events = _causes_first([*((raw, False) for raw in auth_chain), *((raw, True) for raw in state)])
        for start in range(0, len(events), PART):
            part = events[start : start + PART]
            checked = await self._checking.each([raw for raw, _ in part], room.version, room.room_id, self._is_stored)
            taken = {event.event_id: event for event in checked if event is not None and event.event_id != without}
            for event, (_, of_state) in zip(checked, part, strict=True):
                if of_state and event is not None and event.event_id != without:
                    ids.append(event.event_id)
            early |= self._outliers.store(room, taken)
            await deferLater(self._clock, 0)
        await self._outliers.keep(room, early)
        return ids

    def _is_stored(self, event_id: str) -> bool:
        return event_log.place_of(self._rooms.log, event_id) is not None


_sketches = msgspec.json.Decoder(_Sketch)


def _sketch(raw: msgspec.Raw) -> _Sketch | None:
    try:
        return _sketches.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _causes_first(events: list[tuple[msgspec.Raw, bool]]) -> list[tuple[msgspec.Raw, bool]]:
    """Events by depth, create events before all: so whoever follows the protocol comes behind what it cites."""
    sketched = [(sketch.type != CREATE[0], sketch.depth, entry) for entry in events if (sketch := _sketch(entry[0]))]
    sketched.sort(key=lambda entry: entry[:2])
    return [entry for _, _, entry in sketched]
