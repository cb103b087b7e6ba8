"""Who may find whom in the user directory (Client-Server API, "User Directory")."""

from homeserver.rooms.memberships import Memberships
from homeserver.rooms.overview import Overviews
from storage.log.append import Log

MAX_ROOMS = 1000
"""Rooms of one user that are looked at; somebody in more than that is found through the first ones or not at all."""


class FindableUsers:
    """Knows who shares a room with whom and who can be met in a room that is open to all."""

    def __init__(self, log: Log, memberships: Memberships, overviews: Overviews) -> None:
        self._log = log
        self._memberships = memberships
        self._overviews = overviews

    def visible_to(self, searcher: str, user_id: str) -> bool:
        """The two share a room, or ``user_id`` is in a public or world-readable one. For oneself only the latter counts:
        what is found then is what strangers find."""
        if searcher != user_id and self._memberships.share_room(searcher, user_id):
            return True
        rooms = list(self._memberships.joined_rooms(user_id))[:MAX_ROOMS]
        with self._log.snapshot() as snapshot:
            for room_id in rooms:
                overview = self._overviews.of(snapshot, room_id)
                if overview is not None and (overview["join_rule"] == "public" or overview["world_readable"]):
                    return True
        return False
