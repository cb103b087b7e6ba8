"""What the room engine tells the followers about an event it has appended.

The log carries positions and references; whoever follows it live would have to read each event back. The engine
has it in hand at that moment, so that it travels along as the ``note`` of the log entry: in memory only, never
stored, absent for entries that are read from the log after a restart.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class MembersMoved:
    """With a ROOM entry: the users whose membership of the room has changed, of whom no entry tells one by one."""

    users: list[str] = field(default_factory=list)


@dataclass(slots=True)
class EventNote:
    """An event just appended.

    ``record`` is the stored event (``storage.log.events.EventRecord``). For ``m.room.member`` events ``target`` is the
    member, ``membership`` the new and ``prev_membership`` the former membership (None if there was none).
    ``encrypted`` is whether the room is encrypted.
    """

    record: Any
    room_id: str
    event_id: str
    sender: str
    type: str
    state_key: str | None
    seq: int
    membership: str | None = None
    prev_membership: str | None = None
    target: str | None = None
    encrypted: bool = False
