"""The state of a room at a place in its graph: before an event, after it, at the heads.

Server-Server API, "Room State Resolution". States are roots of the room's state map; where they fork, only what differs is
looked at, so that the cost follows the size of the fork and not that of the room.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from federation.rules.auth_events import CREATE, AuthState, auth_types_for
from federation.rules.event import Event
from federation.rules.room_versions import StateResolution
from federation.rules.state_resolution import resolve_conflicts
from homeserver.rooms.room import Room, Rooms, StateKey
from storage.log import events as event_log
from storage.log.append import Batch
from storage.log.state_map import StateMap

MAX_REMEMBERED = 2000


class Agreed(Mapping[StateKey, str]):
    """What the states have in common: one of them without the keys on which they differ."""

    def __init__(self, states: StateMap, root: bytes, without: Mapping[StateKey, object], more: Mapping[StateKey, str]):
        self._states = states
        self._root = root
        self._without = without
        self._more = more

    def __getitem__(self, key: StateKey) -> str:
        found = self._more.get(key)
        if found is None and key not in self._without:
            found = self._states.get(self._root, *key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[StateKey]:
        yield from self._more
        for key, _ in self._states.items(self._root):
            if key not in self._without and key not in self._more:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


class States:
    """States of the rooms of this server, on the write side."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._resolved: OrderedDict[tuple[int, tuple[bytes, ...]], dict[StateKey, str | None]] = OrderedDict()

    def after(self, room_id: str, event_id: str) -> bytes | None:
        """Root of the state after an event of a room; None when its place in the room's graph is not known.

        So it is for an event of another room, too: whoever names one as a predecessor names nothing. And for one whose
        state never became whole (`RoomMeta.unfinished`).
        """
        record = event_log.event_by_id(self._rooms.log, event_id)
        if record is None or not is_placed(record) or record.room_id != room_id or self._is_unfinished(record):
            return None
        return record.state_after

    def is_here(self, room_id: str, event_id: str) -> bool:
        """Whether an event has its place in a room, be its state known or not."""
        record = event_log.event_by_id(self._rooms.log, event_id)
        return record is not None and is_placed(record) and record.room_id == room_id

    def _is_unfinished(self, record: event_log.EventRecord) -> bool:
        room = self._rooms.find(record.room_id)
        spans = () if room is None or record.seq is None else room.meta.unfinished
        return any(first <= (record.seq or 0) <= last for first, last in spans)

    def resolve(self, batch: Batch, room: Room, roots: Sequence[bytes]) -> bytes:
        """The resolution of several states of a room; its new nodes go into the batch."""
        distinct = tuple(sorted(set(roots)))
        if not distinct:
            return b""
        if len(distinct) == 1:
            return distinct[0]
        key = (room.meta.nid, distinct)
        changes = self._resolved.get(key)
        if changes is None:
            changes = self._resolved[key] = self._changes(room, distinct)
            if len(self._resolved) > MAX_REMEMBERED:
                self._resolved.popitem(last=False)
        return room.change_state(batch, distinct[0], changes) if changes else distinct[0]

    def _changes(self, room: Room, roots: tuple[bytes, ...]) -> dict[StateKey, str | None]:
        """What to lay over the first of the states to have the resolved one."""
        states = room.state_map
        base = roots[0]
        values: dict[StateKey, list[str | None]] = {}
        for index, root in enumerate(roots[1:], 1):
            for key, here, there in states.diff(base, root):
                if key not in values:
                    values[key] = [here] * len(roots)
                values[key][index] = there
        agreed: dict[StateKey, str] = {}
        if room.version.state_resolution is StateResolution.V1:
            # There, a key that some states lack is no conflict.
            for key, found in list(values.items()):
                different = {event_id for event_id in found if event_id is not None}
                if len(different) == 1:
                    agreed[key] = different.pop()
                    del values[key]
        without: dict[StateKey, object] = {**values, **agreed}
        resolved = resolve_conflicts(
            room.version,
            Agreed(states, base, without, agreed),
            values,
            self._rooms.event,
            is_rejected=self.is_rejected,
        )
        changes: dict[StateKey, str | None] = {**dict.fromkeys(values), **agreed, **resolved}
        return {key: event_id for key, event_id in changes.items() if states.get(base, *key) != event_id}

    def is_rejected(self, event_id: str) -> bool:
        """Whether a stored event failed authorisation."""
        record = event_log.event_by_id(self._rooms.log, event_id)
        return record is not None and record.rejected

    def auth_state(self, room: Room, root: bytes, event: Event) -> AuthState:
        """Of a state, what the auth rules look at for an event."""
        keys = auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)
        current = root == room.meta.state_root
        found: dict[StateKey, Event] = {}
        for key in (CREATE, *keys):
            if current:
                holder = room.state(*key)
            else:
                event_id = room.state_map.get(root, *key) if root else None
                holder = None if event_id is None else self._rooms.event(event_id)
            if holder is not None:
                found[key] = holder
        return found


def is_placed(record: event_log.EventRecord) -> bool:
    """Whether the state around a stored event is known. It is not for those that only stand in auth chains."""
    return record.seq is not None or bool(record.state_after)
