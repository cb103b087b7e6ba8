"""State resolution v2 (room versions 2 to 11) and v2.1 (room version 12).

Specification: room versions 2 and 12, "State resolution". The numbers in comments are the steps of
"Algorithm".
"""

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from federation.rules.auth import AuthError, check_auth
from federation.rules.auth_chains import Fetch, Key, StateMap, find_conflicted_subgraph
from federation.rules.auth_events import CREATE, JOIN_RULES, POWER_LEVELS, auth_types_for
from federation.rules.event import Event
from federation.rules.power_levels import PowerLevels
from federation.rules.room_versions import RoomVersion, StateResolution

IsRejected = Callable[[str], bool]


def resolve_v2(
    version: RoomVersion, unconflicted: StateMap, conflicted: Mapping[Key, Sequence[str | None]],
    auth_difference: Collection[str], fetch: Fetch,
    is_rejected: IsRejected | None = None,
) -> dict[Key, str]:
    """The entries to lay over the unconflicted state."""
    conflicted_ids = {event_id for ids in conflicted.values() for event_id in ids if event_id is not None}
    full_ids = conflicted_ids.union(auth_difference)
    from_empty = version.state_resolution is StateResolution.V2_1
    if from_empty:
        full_ids |= find_conflicted_subgraph(conflicted_ids, fetch)
    full = {event.event_id: event for event in map(fetch, full_ids) if event is not None and event.is_state}
    partial = _Partial(version, {} if from_empty else unconflicted, fetch, is_rejected or _nothing_is_rejected)

    # 1. Power events, and what of the full conflicted set their auth chains hold, in their order of power.
    power_ids = _with_auth_chains((event.event_id for event in full.values() if _is_power_event(event)), full)
    ordered = _by_reverse_topological_power(power_ids, full, partial.sender_level)
    # 2. Apply them; v2.1 starts from nothing, v2 from the unconflicted state.
    partial.apply(full[event_id] for event_id in ordered)
    # 3. The rest, by where they branch off the mainline of the power levels reached so far.
    rest = [event for event_id, event in full.items() if event_id not in power_ids]
    rest = _by_mainline(rest, partial.get(POWER_LEVELS), fetch)
    # 4. Apply them too.
    partial.apply(rest)
    # 5. What all states agree on stands.
    return {key: id_ for key, id_ in partial.applied.items() if unconflicted.get(key) is None}


class _Partial:
    """The partially resolved state: what was applied, laid over a state to start from."""

    def __init__(
        self, version: RoomVersion, start: StateMap, fetch: Fetch, is_rejected: IsRejected
    ) -> None:
        self.applied: dict[Key, str] = {}
        self._version = version
        self._start = start
        self._fetch = fetch
        self._is_rejected = is_rejected

    def get(self, key: Key) -> Event | None:
        """The event under a key so far."""
        event_id = self.applied.get(key) or self._start.get(key)
        return None if event_id is None else self._fetch(event_id)

    def apply(self, events: Iterable[Event]) -> None:
        """Iterative auth checks: put in each event that the state so far allows."""
        for event in events:
            try:
                check_auth(event, self._auth_state(event))
            except AuthError:
                continue
            self.applied[event.key] = event.event_id  # type: ignore[index]

    def _auth_state(self, event: Event) -> dict[Key, Event]:
        wanted = auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)
        state = {}
        missing = set()
        for key in wanted:
            found = self.get(key)
            if found is not None:
                state[key] = found
            else:
                missing.add(key)
        if missing:
            # What the state lacks comes from the event's own auth events, unless it was rejected.
            for event_id in event.auth_event_ids:
                cited = None if self._is_rejected(event_id) else self._fetch(event_id)
                if cited is not None and cited.key in missing:
                    state[cited.key] = cited
        if self._version.room_id_is_create_hash:
            create = self._fetch(_create_id(event))
            if create is not None:
                state[CREATE] = create
        return state

    def sender_level(self, event: Event) -> int | float:
        """The power of an event's sender by the event's own auth events."""
        create = power_levels = None
        if self._version.room_id_is_create_hash:
            create = self._fetch(_create_id(event))
        for event_id in event.auth_event_ids:
            cited = self._fetch(event_id)
            if cited is None:
                continue
            if cited.key == POWER_LEVELS:
                power_levels = cited
            elif cited.key == CREATE:
                create = cited
        if create is None:
            return 0
        return PowerLevels.of(create, power_levels, self._version).user(event.sender)


def _nothing_is_rejected(event_id: str) -> bool:
    return False


def _create_id(event: Event) -> str:
    return "$" + event.room_id[1:]


def _is_power_event(event: Event) -> bool:
    """Whether an event may take somebody's ability to do something."""
    if event.key in (POWER_LEVELS, JOIN_RULES, CREATE):
        return True
    if event.type == "m.room.member" and event.sender != event.state_key:
        return event.content.get("membership") in ("leave", "ban")
    return False


def _with_auth_chains(starts: Iterable[str], full: Mapping[str, Event]) -> set[str]:
    """Some events with all that their auth events lead to inside the full conflicted set."""
    found: set[str] = set()
    stack = list(starts)
    while stack:
        event_id = stack.pop()
        if event_id not in found:
            found.add(event_id)
            stack.extend(cited for cited in full[event_id].auth_event_ids if cited in full)
    return found


def _by_reverse_topological_power(
    ids: Collection[str], events: Mapping[str, Event], level_of: Callable[[Event], int | float]
) -> list[str]:
    """Kahn's algorithm: auth events before what cites them; else greater power, earlier time, lesser id."""
    waiting_for = {id_: {cited for cited in events[id_].auth_event_ids if cited in ids} for id_ in ids}
    cited_by: dict[str, list[str]] = {}
    for event_id, cited_ids in waiting_for.items():
        for cited in cited_ids:
            cited_by.setdefault(cited, []).append(event_id)

    def rank(event_id: str) -> tuple[int | float, int, str]:
        event = events[event_id]
        return -level_of(event), event.origin_server_ts, event_id

    ready = [rank(event_id) for event_id, cited_ids in waiting_for.items() if not cited_ids]
    heapq.heapify(ready)
    ordered = []
    while ready:
        event_id = heapq.heappop(ready)[2]
        ordered.append(event_id)
        for above in cited_by.get(event_id, ()):
            waiting_for[above].discard(event_id)
            if not waiting_for[above]:
                heapq.heappush(ready, rank(above))
    return ordered


def _by_mainline(events: list[Event], power_levels: Event | None, fetch: Fetch) -> list[Event]:
    """Order events by how far up the mainline of a power levels event they branch off: oldest first."""
    positions: dict[str, int] = {}
    while power_levels is not None and power_levels.event_id not in positions:
        positions[power_levels.event_id] = -len(positions)
        power_levels = _cited_power_levels(power_levels, fetch)
    off_mainline = -len(positions)  # behind the oldest
    known = dict(positions)

    def position(event: Event) -> int:
        walked = []
        at = _cited_power_levels(event, fetch)
        while at is not None and at.event_id not in known:
            known[at.event_id] = off_mainline  # also ends a walk in circles
            walked.append(at.event_id)
            at = _cited_power_levels(at, fetch)
        found = off_mainline if at is None else known[at.event_id]
        known.update(dict.fromkeys(walked, found))
        return found

    return sorted(events, key=lambda event: (position(event), event.origin_server_ts, event.event_id))


def _cited_power_levels(event: Event, fetch: Fetch) -> Event | None:
    for event_id in event.auth_event_ids:
        cited = fetch(event_id)
        if cited is not None and cited.key == POWER_LEVELS:
            return cited
    return None
