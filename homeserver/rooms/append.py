"""One event of a user of this server: decided, recommended where the room has a policy server, appended."""

from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import server_name_of
from homeserver.rooms.place import Also
from homeserver.rooms.room import Draft, Room, Rooms
from storage.log import events as event_log
from storage.log.append import Batch

_report = Logger()


async def append_event(
    rooms: Rooms,
    room: Room,
    draft: Draft,
    *,
    txn: tuple[str, str] | None = None,
    also: Also | None = None,
) -> Event:
    """Put an event into a room; it is durable on return.

    ``also`` is done in the same turn and written in the same batch; ``txn`` names the device and its transaction. An event
    in the name of a user of another server, which third-party invites allow, is sent on like our own.
    Without a policy server all of it is one turn, begun at once. Raises MatrixError 403 when the rules refuse the
    event, 413 when it is too large, and what a policy server says.
    """
    if rooms.policed is not None and asks_first(rooms, room, draft):
        return await rooms.policed.append(room, draft, txn, also)
    event = room.decide(draft)
    batch = rooms.log.begin()
    try:
        own = server_name_of(draft.sender) == rooms.server_name
        note = room.stage(batch, event, txn=txn, flags=0 if own else event_log.RELAYED)
        if also is not None:
            also(batch, room, event, note)
    except BaseException:
        rooms.drop(room.room_id)  # its picture has moved on to what is not appended
        raise
    await rooms.log.append(batch)
    return event


async def append_if_allowed(rooms: Rooms, room_id: str, draft: Draft) -> Event | None:
    """The same for what follows from something else: None when the room, or its policy server, refuses it."""
    try:
        return await append_event(rooms, rooms.get(room_id), draft)
    except MatrixError as error:
        _report.info(
            "{type} of {sender} is refused in {room}: {why}",
            type=draft.type,
            sender=draft.sender,
            room=room_id,
            why=error.error,
        )
        return None


def asks_first(rooms: Rooms, room: Room, draft: Draft) -> bool:
    """Whether a policy server has to be asked before this event: then it cannot share a turn with anything else."""
    return rooms.policed is not None and rooms.policed.governs(room, draft)


def stage_if_allowed(batch: Batch, room: Room, draft: Draft) -> bool:
    """Decide an event in the turn of others; False when the room refuses it. Not for one that `asks_first`."""
    try:
        event = room.decide(draft)
    except MatrixError:
        return False
    room.stage(batch, event)
    return True
