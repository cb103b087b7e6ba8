"""State resolution: which state a room has where its history forks.

Specification: room versions, "State resolution" of room versions 1, 2 and 12. Everything is a function of
the states and of ``fetch``, which gives the event of an id, or None when it is missing or was rejected on
its auth chain. The outcome depends on neither the order of the states nor of their entries.

A caller that knows where its states differ calls ``resolve_conflicts`` with just that; ``resolve``
compares whole states first. Walks over auth chains keep ids, not events.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from federation.rules.auth_chains import Fetch, Key, StateMap, find_auth_difference
from federation.rules.room_versions import RoomVersion, StateResolution
from federation.rules.state_resolution_v1 import resolve_v1
from federation.rules.state_resolution_v2 import resolve_v2

__all__ = ["Fetch", "Key", "StateMap", "find_auth_difference", "resolve", "resolve_conflicts", "separate"]


def resolve(
    version: RoomVersion,
    state_sets: Sequence[StateMap],
    fetch: Fetch,
    *,
    auth_difference: Collection[str] | None = None,
    is_rejected: Callable[[str], bool] | None = None,
) -> dict[Key, str]:
    """The resolution of a set of room states, as a whole state.

    ``auth_difference`` saves walking the auth chains when the caller has an index for it.
    """
    unconflicted, conflicted = separate(state_sets, version)
    resolved = dict(unconflicted)
    if conflicted:
        resolved.update(
            resolve_conflicts(
                version,
                unconflicted,
                conflicted,
                fetch,
                auth_difference=auth_difference,
                is_rejected=is_rejected,
            )
        )
    return resolved


def separate(
    state_sets: Sequence[StateMap], version: RoomVersion
) -> tuple[dict[Key, str], dict[Key, list[str | None]]]:
    """Split states into what they agree on and what they do not.

    The second value has, for each key in conflict, the event of each state in turn (None where a state
    has none). In the first algorithm a key that some states lack is no conflict.
    """
    unconflicted: dict[Key, str] = {}
    conflicted: dict[Key, list[str | None]] = {}
    lacking_is_conflict = version.state_resolution is not StateResolution.V1
    for key in set().union(*state_sets):
        values = [state.get(key) for state in state_sets]
        different = set(values) if lacking_is_conflict else set(values) - {None}
        if len(different) == 1:
            unconflicted[key] = next(value for value in values if value is not None)
        else:
            conflicted[key] = values
    return unconflicted, conflicted


def resolve_conflicts(
    version: RoomVersion,
    unconflicted: StateMap,
    conflicted: Mapping[Key, Sequence[str | None]],
    fetch: Fetch,
    *,
    auth_difference: Collection[str] | None = None,
    is_rejected: Callable[[str], bool] | None = None,
) -> dict[Key, str]:
    """Resolve the keys that states do not agree on.

    ``conflicted`` gives for each such key the event id in each state, in one order of the states for all
    keys, None where a state lacks the key. ``unconflicted`` is asked for single keys (and walked over
    only when the auth chains of the conflicted events alone leave the auth difference open). The answer
    has the entries to lay over ``unconflicted``: usually the conflicted keys, some of them missing when
    nothing of theirs is allowed. ``is_rejected`` tells of events that were rejected and may therefore not
    authorise others.
    """
    if version.state_resolution is StateResolution.V1:
        return resolve_v1(unconflicted, conflicted, fetch)
    if auth_difference is None:
        auth_difference = find_auth_difference(unconflicted, conflicted, fetch)
    return resolve_v2(version, unconflicted, conflicted, auth_difference, fetch, is_rejected)
