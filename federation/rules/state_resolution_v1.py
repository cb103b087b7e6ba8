"""The first state resolution algorithm, of room version 1.

Specification: room version 1, "State resolution".
"""

from collections.abc import Callable, Mapping, Sequence
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

    def allowed(event: Event, before: Event | None = None) -> bool:
        state: dict[Key, Event] = {}
        for key in (CREATE, *_auth_types(event)):
            found = before if before is not None and key == before.key else resolved.get(key)
            if found is None and key not in conflicted and (event_id := unconflicted.get(key)) is not None:
                found = fetch(event_id)
            if found is not None:
                state[key] = found
        try:
            check_auth(event, state)
        except AuthError:
            return False
        return True

    for rank in range(len(_ORDER) + 1):
        # Keys of one rank do not see each other's outcome, so that their order is of no account.
        outcome: dict[Key, Event] = {}
        for key in conflicted:
            events = _in_order(conflicted[key], fetch) if _rank(key) == rank else []
            if not events:
                continue
            if rank < len(_ORDER):
                outcome[key] = _last_of_allowed_run(events, allowed)
            else:
                # When none is allowed the one of least depth stays, as with every other server.
                outcome[key] = next((event for event in reversed(events) if allowed(event)), events[0])
        resolved.update(outcome)
    return {key: event.event_id for key, event in resolved.items()}


def _last_of_allowed_run(events: list[Event], allowed: Callable[[Event, Event], bool]) -> Event:
    """The first event stands; each further one replaces it for as long as what stands allows it."""
    standing = events[0]
    for event in events[1:]:
        if not allowed(event, standing):
            break
        standing = event
    return standing


def _in_order(ids: Sequence[str | None], fetch: Fetch) -> list[Event]:
    """Ascending depth, then descending SHA-1 of the id."""
    events = [event for id_ in set(ids) if id_ is not None and (event := fetch(id_)) is not None]
    events.sort(key=_sha1, reverse=True)
    events.sort(key=lambda event: event.depth)
    return events


def _auth_types(event: Event) -> list[Key]:
    return auth_types_for(event.type, event.state_key, event.sender, event.content, event.version)


def _rank(key: Key) -> int:
    return _ORDER.index(key[0]) if key[0] in _ORDER else len(_ORDER)


def _sha1(event: Event) -> str:
    return sha1(event.event_id.encode("utf-8"), usedforsecurity=False).hexdigest()
