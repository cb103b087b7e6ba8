"""This server's guests leave where guests are no longer let in.

Client-Server API, "Guest Access": whoever changes ``m.room.guest_access``, each server takes out its own guests.
"""

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.rules.event import Event
from homeserver.rooms.append import append_if_allowed
from homeserver.rooms.notes import EventNote
from homeserver.rooms.room import Draft, Room, Rooms
from storage.log.append import Batch, Entry


def admits_guests(room: Room) -> bool:
    """Whether guests may be in the room."""
    return room.content("m.room.guest_access").get("guest_access") == "can_join"


def remove_guests(batch: Batch, room: Room, event: Event) -> None:
    """Let the guests leave in the turn of the event of a user of ours that no longer takes them."""
    for leave in _leaves(room):
        room.stage(batch, room.decide(leave))


class GuestsLeaving:
    """A follower: lets the guests leave whom `remove_guests` did not, for instance after another server's event."""

    def __init__(self, rooms: Rooms, call_later: Callable[..., Any]) -> None:
        """``call_later`` is the reactor's."""
        self._rooms = rooms
        self._call_later = call_later

    def follow(self, entries: Sequence[Entry]) -> None:
        """Look for what changes who may be in a room."""
        for entry in entries:
            note = entry.note
            if isinstance(note, EventNote) and note.type == "m.room.guest_access" and note.state_key == "":
                self._call_later(0, self._begin, note.room_id)

    def _begin(self, room_id: str) -> None:
        room = self._rooms.find(room_id)
        leaves = [] if room is None else _leaves(room)
        if leaves:
            Deferred.fromCoroutine(self._leave(room_id, leaves)).addErrback(_report_failure)

    async def _leave(self, room_id: str, leaves: list[Draft]) -> None:
        for leave in leaves:
            await append_if_allowed(self._rooms, room_id, leave)


def _leaves(room: Room) -> list[Draft]:
    if admits_guests(room):
        return []
    return [
        Draft(user_id, "m.room.member", {"membership": "leave"}, state_key=user_id)
        for user_id in room.local_joined()
        if room.content("m.room.member", user_id).get("kind") == "guest"
    ]


def _report_failure(failure: Any) -> None:
    Logger().warn("guests stay in a room that no longer takes them: {why}", why=failure.getErrorMessage())
