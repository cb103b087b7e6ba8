"""Rooms that were joined before the whole of their state was here: what is needed to fetch the rest, over restarts.

A room of these has ``partial_state`` in its row. The rows stand among the followers, under a prefix of their own.
"""

import msgspec

from storage.log.append import Batch
from storage.log.catalog import FOLLOWERS
from storage.log.events import event_by_id
from storage.log.keys import after_prefix, part, u64
from storage.log.rooms import RoomMeta
from storage.log.view import Snapshot, View

MAX_UNFINISHED = 50
"""Spans that are remembered of a room, the newest."""
_PREFIX = part("partial_join")


class PartialJoin(msgspec.Struct, array_like=True, frozen=True):
    """A join whose state is not complete yet."""

    room_id: str
    event_id: str
    """The member event by which this server came in."""
    servers: list[str]
    """Servers in the room as the resident server told them, that one first."""


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(PartialJoin)


def put_partial_join(batch: Batch, join: PartialJoin) -> None:
    """Write a row."""
    batch.put(FOLLOWERS, _PREFIX + part(join.room_id), u64(0) + _encode(join))


def drop_partial_join(batch: Batch, room_id: str) -> None:
    """The state is complete, or nobody needs it any more."""
    batch.delete(FOLLOWERS, _PREFIX + part(room_id))


def given_up(view: View, meta: RoomMeta) -> list[tuple[int, int]]:
    """`RoomMeta.unfinished` of a room, once its join is given up whose state is not complete."""
    join = partial_join(view, meta.room_id)
    record = None if join is None else event_by_id(view, join.event_id)
    if record is None or record.seq is None:
        return meta.unfinished
    return [*meta.unfinished, (record.seq, meta.last_seq)][-MAX_UNFINISHED:]


def partial_join(view: View, room_id: str) -> PartialJoin | None:
    """The row of a room, None when its state is complete."""
    data = view.get(FOLLOWERS, _PREFIX + part(room_id))
    return None if data is None else _decoder.decode(data[8:])


def partial_joins(snapshot: Snapshot) -> list[PartialJoin]:
    """All of them."""
    rows = snapshot.range(FOLLOWERS, _PREFIX, after_prefix(_PREFIX))
    return [_decoder.decode(data[8:]) for _, data in rows]
