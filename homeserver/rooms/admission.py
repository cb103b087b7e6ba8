"""What other servers get back when one of their users comes in, leaves or knocks.

Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking". See `resident` for the events themselves.
"""

from collections.abc import Sequence
from typing import Any

import orjson

from homeserver.rooms.peer_reading import PeerReading
from homeserver.rooms.resident import Resident
from homeserver.rooms.room import Room, Rooms
from homeserver.rooms.servers import Servers

STRIPPED = (
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
)
"""What somebody outside is told of a room (Client-Server API, "Stripped state")."""


class Admission:
    """The resident side of membership over federation; see `federation.inbound.ports.LetsIn`."""

    def __init__(self, rooms: Rooms, servers: Servers, resident: Resident, reading: PeerReading) -> None:
        self._rooms = rooms
        self._servers = servers
        self._resident = resident
        self._reading = reading

    def template(
        self, origin: str, room_id: str, user_id: str, membership: str, versions: Sequence[str] | None
    ) -> dict[str, Any]:
        """See `Resident.template`."""
        return self._resident.template(origin, room_id, user_id, membership, versions)

    async def join(self, origin: str, room_id: str, event_id: str, pdu: Any, omit_members: bool) -> dict[str, Any]:
        """Let a user in; the state before, its auth chain, and the event as it is sent to the others."""
        room = self._resident.room_for(origin, room_id)
        servers = sorted(self._servers.of(room))
        accepted = await self._resident.accept(origin, room_id, event_id, pdu, "join")
        record = accepted.record
        answer = await self._reading.entry(accepted.room, record.state_before, accepted.event, omit_members)
        answer["event"] = orjson.Fragment(bytes(record.pdu))
        answer["origin"] = self._rooms.server_name
        if omit_members:
            answer["servers_in_room"] = servers
        return answer

    async def leave(self, origin: str, room_id: str, event_id: str, pdu: Any) -> None:
        """Let a user leave, reject an invite or take a knock back."""
        await self._resident.accept(origin, room_id, event_id, pdu, "leave")

    async def knock(self, origin: str, room_id: str, event_id: str, pdu: Any) -> dict[str, Any]:
        """Take a knock in; the room in stripped form, for whoever knocked."""
        accepted = await self._resident.accept(origin, room_id, event_id, pdu, "knock")
        return {"knock_room_state": stripped_state(accepted.room)}


def stripped_state(room: Room) -> list[dict[str, Any]]:
    """A room as somebody outside is told of it."""
    events = [event for type_ in STRIPPED if (event := room.state(type_)) is not None]
    return [
        {"type": event.type, "state_key": event.state_key, "sender": event.sender, "content": event.content}
        for event in events
    ]
