"""Walks over the graph that ``auth_events`` make. They keep ids, and let events go.

Specification: room versions 2 and 12, "State resolution", the definitions of auth chain, auth difference and
conflicted state subgraph.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from federation.rules.event import Event

Key = tuple[str, str]
StateMap = Mapping[Key, str]
Fetch = Callable[[str], Event | None]


class AuthGraph:
    """The auth graph as far as it was looked at; ``shared`` are met events that all states have."""

    def __init__(self, fetch: Fetch, unconflicted: StateMap) -> None:
        self._fetch = fetch
        self._unconflicted = unconflicted
        self._edges: dict[str, tuple[str, ...]] = {}
        self.shared: set[str] = set()

    def edges(self, event_id: str) -> tuple[str, ...]:
        """The ids that an event cites; none when it is missing."""
        edges = self._edges.get(event_id)
        if edges is None:
            event = self._fetch(event_id)
            edges = () if event is None else event.auth_event_ids
            self._edges[event_id] = edges
            if event is not None and self._unconflicted.get(event.key) == event_id:  # type: ignore[arg-type]
                self.shared.add(event_id)
        return edges

    def walk(self, starts: Iterable[str], *, past_shared: bool = True) -> Iterator[str]:
        """Each event of the chains of some events once, the starts included.

        ``past_shared=False`` leaves out events that all states have, and does not look behind them.
        """
        seen: set[str] = set()
        stack = list(starts)
        while stack:
            event_id = stack.pop()
            if event_id in seen:
                continue
            seen.add(event_id)
            edges = self.edges(event_id)
            if not past_shared and event_id in self.shared:
                continue
            yield event_id
            stack.extend(edges)


def find_auth_difference(
    unconflicted: StateMap, conflicted: Mapping[Key, Sequence[str | None]], fetch: Fetch
) -> set[str]:
    """The events that are in the auth chains of some states and not in those of all.

    A chain counts with the events it starts from: they are in conflict anyway, or in all states.
    """
    graph = AuthGraph(fetch, unconflicted)
    masks: dict[str, int] = {}
    count = max((len(values) for values in conflicted.values()), default=0)
    for index in range(count):
        starts = [value for values in conflicted.values() if (value := values[index]) is not None]
        for event_id in graph.walk(starts, past_shared=False):
            masks[event_id] = masks.get(event_id, 0) | 1 << index
    full = (1 << count) - 1
    difference = {event_id for event_id, mask in masks.items() if mask != full}
    # What these chains leave open may still be in the chain of an event that all states have. Conflicted
    # events count anyway, so that the long way is walked only where others are left.
    open_ = difference - {value for values in conflicted.values() for value in values if value is not None}
    for shared in (list(graph.shared), unconflicted.values()) if open_ else ():
        for event_id in graph.walk(shared):
            if event_id in difference:
                difference.discard(event_id)
                open_.discard(event_id)
                if not open_:
                    return difference
    return difference


def find_conflicted_subgraph(conflicted: Collection[str], fetch: Fetch) -> set[str]:
    """All events on paths of ``auth_events`` from one conflicted event to another, ends included."""
    graph = AuthGraph(fetch, {})
    cited_by: dict[str, list[str]] = {}
    for event_id in graph.walk(conflicted):
        for cited in graph.edges(event_id):
            cited_by.setdefault(cited, []).append(event_id)
    # Everything walked is behind a conflicted event; what remains is to come up from one.
    subgraph: set[str] = set()
    stack = list(conflicted)
    while stack:
        event_id = stack.pop()
        if event_id not in subgraph:
            subgraph.add(event_id)
            stack.extend(cited_by.get(event_id, ()))
    return subgraph
