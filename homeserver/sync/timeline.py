"""Choose the timeline of one room: the newest events that the reader may see and wants, and whether there are more."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MAX_SCAN = 2_000
"""Events of one room that are looked at for one timeline; a client that wants rare ones goes on with /messages."""


class Timeline(NamedTuple):
    """Events oldest first; ``limited`` if older new ones were left out; ``cut`` is where /messages goes on
    backwards."""

    records: list[Any]
    limited: bool
    cut: int


def choose(newest_first: Iterable[Any], last: int, limit: int, wanted: Callable[[Any], bool]) -> Timeline:
    """Take at most ``limit`` wanted events. ``last`` is the newest sequence number there is.

    Clients apply the state events of a timeline over ``state``. An older state event must therefore not be told when
    the newest one of the same piece of state stays hidden: the timeline is cut behind it, as if there were a gap.
    """
    chosen: list[Any] = []
    told: set[tuple[str, str]] = set()
    hidden: set[tuple[str, str]] = set()
    limited = False
    for scanned, record in enumerate(newest_first):
        if scanned >= MAX_SCAN:
            limited = True
            break
        state_key = record.state_key
        if not wanted(record):
            if state_key is not None and (record.type, state_key) not in told:
                hidden.add((record.type, state_key))
            continue
        if len(chosen) == limit or (state_key is not None and hidden and (record.type, state_key) in hidden):
            limited = True
            break
        chosen.append(record)
        if state_key is not None:
            told.add((record.type, state_key))
    chosen.reverse()
    return Timeline(chosen, limited, chosen[0].seq if chosen else last + 1)
