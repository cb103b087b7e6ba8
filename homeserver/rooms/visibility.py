"""Who may see an event of a room: the table of history visibility, as a pure function.

Specification: Client-Server API, module "Room History Visibility", section "Server behaviour".

Two facts about each side of the event decide: the room's ``m.room.history_visibility`` and the reader's own membership.
Only two kinds of events have two different sides: a change of the history visibility itself and a change of the
reader's own membership. They are visible when either side allows it.
"""

from collections.abc import Callable
from typing import NamedTuple

WORLD_READABLE = "world_readable"
SHARED = "shared"
INVITED = "invited"
JOINED = "joined"
JOIN = "join"
_KNOWN = frozenset({WORLD_READABLE, SHARED, INVITED, JOINED})


class Standing(NamedTuple):
    """One side of an event: the room's history visibility and the reader's membership (``leave`` if none)."""

    visibility: str
    membership: str


OUTSIDER = Standing(SHARED, "leave")


def known_visibility(value: object) -> str:
    """The visibility that a state event's value stands for: absent or unknown values count as ``shared``."""
    return value if isinstance(value, str) and value in _KNOWN else SHARED


def allows(standing: Standing, joined_later: bool) -> bool:
    """The specification's table for one side of an event.

    ``joined_later`` is whether the reader was joined at any point after the event.
    """
    if standing.visibility == WORLD_READABLE or standing.membership == JOIN:
        return True
    if standing.visibility == SHARED:
        return joined_later
    return standing.visibility == INVITED and standing.membership == "invite"


def may_see(before: Standing, after: Standing, joined_later: bool) -> bool:
    """Whether an event is visible, given the reader's standing before and after it."""
    return allows(before, joined_later) or (after != before and allows(after, joined_later))


class Sight:
    """What one reader may see in one room.

    ``standing_at`` reads a state root (the reader asks for each root once: most events of a room share theirs with
    their neighbour). ``last_joined`` gives the highest sequence number at which the reader was still joined:
    infinite while joined, None when never; it is asked for only when the table needs it.
    """

    __slots__ = ("_last_joined", "_last_joined_of", "_standing_at", "_standings", "user_id")

    def __init__(
        self,
        user_id: str,
        standing_at: Callable[[bytes], Standing],
        last_joined: Callable[[], float | None],
    ) -> None:
        self.user_id = user_id
        self._standing_at = standing_at
        self._standings: dict[bytes, Standing] = {}
        self._last_joined_of = last_joined
        self._last_joined: float | bool | None = False

    def standing(self, root: bytes) -> Standing:
        """The reader's standing in the state named by ``root``."""
        found = self._standings.get(root)
        if found is None:
            found = self._standings[root] = self._standing_at(root)
        return found

    def joined_after(self, sequence: int) -> bool:
        """Whether the reader was joined at some point after the event numbered ``sequence``."""
        if self._last_joined is False:
            self._last_joined = self._last_joined_of()
        return self._last_joined is not None and self._last_joined > sequence

    def sees(
        self, sequence: int, type_: str, state_key: str | None, state_before: bytes, state_after: bytes
    ) -> bool:
        """Whether the reader may see the event with this place, type and state around it."""
        before = self.standing(state_before)
        if before.membership == JOIN or before.visibility == WORLD_READABLE:
            return True
        own = type_ == "m.room.member" and state_key == self.user_id
        if own or (type_ == "m.room.history_visibility" and state_key == ""):
            return may_see(before, self.standing(state_after), self.joined_after(sequence))
        return allows(before, before.visibility == SHARED and self.joined_after(sequence))

    def membership_at(self, type_: str, state_key: str | None, state_before: bytes, state_after: bytes) -> str:
        """The reader's membership at an event, changes made by the event included (``unsigned.membership``)."""
        own = type_ == "m.room.member" and state_key == self.user_id
        return self.standing(state_after if own else state_before).membership
