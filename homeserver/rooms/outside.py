"""Member events of our users in rooms that this server is not in: an invite, a knock, and how each ends.

They stand outside of the room's graph, which nobody here knows; the user's row names them, so that a sync shows them.
"""

import orjson

from federation.rules.event import Event
from homeserver.rooms.room import Room, Rooms, stored_form
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.append import Kind


async def keep_outside(rooms: Rooms, event: Event, stripped: list[dict[str, object]] | None = None) -> None:
    """Write down that a user has the membership of a member event. Durable when it returns.

    ``stripped`` is what the user is shown of the room meanwhile. A room that nobody has heard of is made.
    """
    log, target = rooms.log, str(event.state_key)
    batch = log.begin()
    room = rooms.find(event.room_id)
    if room is None:
        nid = batch.entry(Kind.ROOM, room_id=event.room_id)
        meta = room_log.RoomMeta(room_id=event.room_id, nid=nid, version=event.version.id)
        room_log.create_room(batch, meta)
        room = rooms.add(Room(rooms, meta))
    if event_log.place_of(log, event.event_id) is None:
        event_log.put_outlier(batch, room.meta.nid, stored_form(event, b"", b""))
    position = batch.entry(Kind.MEMBERSHIP, room_id=event.room_id, user_id=target)
    record = room_log.MembershipRecord(
        event.room_id,
        str(event.content.get("membership")),
        position,
        event.event_id,
        event.sender,
        False,
        orjson.dumps(stripped) if stripped is not None else b"",
    )
    room_log.put_membership(batch, target, record)
    await log.append(batch)
