"""Which state events go with a timeline.

Specification: Client-Server API, "GET /sync" (``state``, ``state_after``) and "Lazy-loading room members".

A client lays ``state`` first and the state events of the timeline on top of it; the result has to be the room's state
at the end of the timeline. So everything that differs at the end, and that the timeline itself does not tell, goes
into ``state``; of what the timeline tells, ``state`` has the version from before.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

StateKey = tuple[str, str]
MEMBER = "m.room.member"


class States(Protocol):
    """Reads of immutable states by root (``storage.log.state_map.StateMap``)."""

    def get(self, root: bytes, type_: str, state_key: str) -> str | None:
        """The event that holds one piece of state."""

    def diff(self, one: bytes, other: bytes) -> Iterable[tuple[StateKey, str | None, str | None]]:
        """What differs: key, event in the one, event in the other."""


@dataclass(slots=True)
class Span:
    """The states around a timeline: at ``since`` (``b""``: nothing known yet), at its start and at its end."""

    since: bytes
    start: bytes
    end: bytes


def told_by(records: Iterable[Any]) -> set[StateKey]:
    """The pieces of state that the events of a timeline tell."""
    return {(record.type, record.state_key) for record in records if record.state_key is not None}


def state_changes(states: States, span: Span, lazy: bool) -> dict[StateKey, tuple[str | None, str | None]]:
    """What differs between since and the end of the timeline: key → (event then, event now).

    With ``lazy`` and nothing known at since, members are left out: they are looked up one by one.
    """
    if span.since == span.end:
        return {}
    return {
        key: (old, new)
        for key, old, new in states.diff(span.since, span.end)
        if not (lazy and not span.since and key[0] == MEMBER)
    }


def state_for_start(
    states: States, span: Span, changed: Mapping[StateKey, tuple[str | None, str | None]], told: set[StateKey]
) -> dict[StateKey, str]:
    """The section ``state``: what a client needs before it reads the timeline."""
    section: dict[StateKey, str] = {}
    for key, (old, new) in changed.items():
        event_id = new
        if key in told:
            event_id = states.get(span.start, *key) if span.start else None
            if event_id == old:
                continue
        if event_id is not None:
            section[key] = event_id
    return section


def state_for_end(changed: Mapping[StateKey, tuple[str | None, str | None]]) -> dict[StateKey, str]:
    """The section ``state_after``: everything that changed until the end of the timeline."""
    return {key: new for key, (_, new) in changed.items() if new is not None}
