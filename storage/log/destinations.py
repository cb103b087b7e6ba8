"""What the queues towards other servers keep: a row for each, the rooms shared with it, to-device messages for it.

Events are not kept here: a server that has to catch up is read what it lacks from the rooms themselves.
"""

from collections.abc import Iterator

from storage.log.append import Batch, Kind
from storage.log.catalog import DESTINATION_ROOMS, DESTINATIONS, OUTBOUND_MESSAGES
from storage.log.keys import LAST, after_prefix, from_u64, part, u64
from storage.log.view import Snapshot, View


def put_destination(batch: Batch, server: str, row: bytes) -> None:
    """Write what the queue knows of a server."""
    batch.put(DESTINATIONS, part(server), row)


def destination(view: View, server: str) -> bytes | None:
    """The row of one server."""
    return view.get(DESTINATIONS, part(server))


def all_destinations(snapshot: Snapshot) -> Iterator[bytes]:
    """The rows of all servers."""
    for _, row in snapshot.range(DESTINATIONS, b"\0", b"\xff" * 34):
        yield row


def room_since(view: View, server: str, room_id: str) -> int | None:
    """Since which position a room is known to be shared with a server, None if it is not."""
    value = view.get(DESTINATION_ROOMS, part(server) + part(room_id))
    return None if value is None else int.from_bytes(value[:8], "big")


def put_room(batch: Batch, server: str, room_id: str, position: int) -> None:
    """A room is shared with a server since this position."""
    batch.put(DESTINATION_ROOMS, part(server) + part(room_id), u64(position) + room_id.encode())


def delete_room(batch: Batch, server: str, room_id: str) -> None:
    """Nothing in this room is for that server any more."""
    batch.delete(DESTINATION_ROOMS, part(server) + part(room_id))


def rooms_of(snapshot: Snapshot, server: str) -> Iterator[str]:
    """Rooms shared with a server, in key order."""
    prefix = part(server)
    for _, value in snapshot.range(DESTINATION_ROOMS, prefix, after_prefix(prefix)):
        yield value[8:].decode()


def put_message(batch: Batch, server: str, content: bytes) -> int:
    """Queue the content of an ``m.direct_to_device`` EDU for a server; returns its position."""
    position = batch.entry(Kind.FEDERATION, ref=server.encode())
    batch.put(OUTBOUND_MESSAGES, part(server) + u64(position), content)
    return position


def messages(snapshot: Snapshot, server: str, limit: int) -> list[tuple[int, bytes]]:
    """``(position, content)`` of the oldest messages that a server has not accepted yet."""
    prefix = part(server)
    rows = snapshot.range(OUTBOUND_MESSAGES, prefix + u64(0), prefix + LAST, limit=limit)
    return [(from_u64(key, len(prefix)), value) for key, value in rows]


def message_positions(snapshot: Snapshot, server: str) -> list[int]:
    """Positions of all messages that wait for a server, the oldest first."""
    prefix = part(server)
    rows = snapshot.range(OUTBOUND_MESSAGES, prefix + u64(0), prefix + LAST)
    return [from_u64(key, len(prefix)) for key, _ in rows]


def delete_message(batch: Batch, server: str, position: int) -> None:
    """A message was accepted, or set aside."""
    batch.delete(OUTBOUND_MESSAGES, part(server) + u64(position))
