"""The event at a time that lies before what is here of a room: asked for, and fetched with what is in between.

Client-Server API, "timestamp_to_event". What another server names is believed no further than that it is worth fetching.
"""

from federation.rules.errors import MatrixError
from homeserver.rooms.history import History
from homeserver.rooms.peers import Peers
from homeserver.rooms.room import Rooms
from homeserver.rooms.servers import Servers
from storage.log import events as event_log

MAX_SERVERS = 3
"""Servers that are asked for an event near a time."""
MAX_PAGES = 20
"""Pages of history, 100 events each, that are fetched to get to one. Events further back stay where they are."""


class Moments:
    """Extends the history of rooms as far back as a time."""

    def __init__(self, rooms: Rooms, servers: Servers, history: History, peers: Peers) -> None:
        self._rooms = rooms
        self._servers = servers
        self._history = history
        self._peers = peers

    async def reach(self, room_id: str, ts: int, *, forward: bool, nearest: int | None) -> bool:
        """Fetch history until the event closest to ``ts`` (milliseconds) is here, if others know of a closer one.

        ``nearest`` is the time of the closest event that is here. Says whether anything came.
        """
        room = self._rooms.find(room_id)
        if room is None or not self._history.has_more(room_id):
            return False
        for server in self._servers.to_ask(room)[:MAX_SERVERS]:
            try:
                event_id, at = await self._peers.timestamp_to_event(server, room_id, ts, forward)
            except MatrixError:
                continue
            right_side = at >= ts if forward else at <= ts
            if right_side and (nearest is None or abs(at - ts) < abs(nearest - ts)):
                return await self._fetch_until(room_id, event_id)
        return False

    async def _fetch_until(self, room_id: str, event_id: str) -> bool:
        came = False
        for _ in range(MAX_PAGES):
            if self._is_placed(event_id) or not await self._history.fetch(room_id):
                break
            came = True
        return came

    def _is_placed(self, event_id: str) -> bool:
        record = event_log.event_by_id(self._rooms.log, event_id)
        return record is not None and record.seq is not None
