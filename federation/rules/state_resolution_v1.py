"""The first state resolution algorithm, of room version 1.

Specification: room version 1, "State resolution".
"""

from collections.abc import Mapping, Sequence
from hashlib import sha1

from federation.rules.auth import AuthError, check_auth
from federation.rules.auth_chains import Fetch, Key, StateMap
from federation.rules.auth_events import CREATE, auth_types_for
from federation.rules.event import Event

_ORDER = ("m.room.power_levels", "m.room.join_rules", "m.room.member")


def resolve_v1(
    unconflicted: StateMap, conflicted: Mapping[Key, Sequence[str | None]], fetch: Fetch
) -> dict[Key, str]:
    """The entries for the conflicted keys: power levels first, then join rules, members and the rest."""
    resolved: dict[Key, Event] = {}

    def allowed(event: Event) -> bool:
        state: dict[Key, Event] = {}
        for key in (CREATE, *_auth_types(event)):
            found = resolved.get(key)
            if found is None and key not in conflicted and (event_id := unconflicted.get(key)) is not None:
                found = fetch(event_id)
            if found is not None:
                state[key] = found
        try:
            check_auth(event, state)
        except AuthError:
            return False
        return True

    for key in sorted(conflicted, key=lambda key: (_rank(key), key)):
        ids = {event_id for event_id in conflicted[key] if event_id is not None}
        events = [event for event in map(fetch, ids) if event is not None]
        if not events:
            continue
        # Ascending depth, then descending SHA-1 of the id.
        events.sort(key=lambda event: _sha1(event), reverse=True)
        events.sort(key=lambda event: event.depth)
        if key[0] in _ORDER:
            resolved[key] = events[0]
            for event in events[1:]:
                if not allowed(event):
                    break
                resolved[key] = event
        else:
            # When none is allowed the one of least depth stays, as with every other server.
            resolved[key] = next((event for event in reversed(events) if allowed(event)), events[0])
    return {key: event.event_id for key, event in resolved.items()}


def _auth_types(event: Event) -> list[Key]:
    return auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)


def _rank(key: Key) -> int:
    return _ORDER.index(key[0]) if key[0] in _ORDER else len(_ORDER)


def _sha1(event: Event) -> str:
    return sha1(event.event_id.encode("utf-8"), usedforsecurity=False).hexdigest()
