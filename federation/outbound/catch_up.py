"""What a server has missed, read from the rooms themselves.

After a short absence it gets every event of ours; where a room has gone on for longer only its heads, from which it
fetches what it lacks and cares about (Server-Server API, "Backfilling and retrieving missing events").
"""

from collections.abc import Iterator
from typing import NamedTuple

import orjson

from federation.outbound.ports import Hosts
from federation.rules.ids import server_name_of
from storage.log import destinations, device_lists
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.events import EventRecord
from storage.log.keys import seq_key
from storage.log.state_map import StateMap
from storage.log.view import Snapshot

WHOLE_GAP = 100
"""A room with at most this many new events is caught up event by event."""
MAX_USERS = 1000
"""Users whose devices changed meanwhile, newest last; with more, peers notice by the gap in the stream ids."""


class Due(NamedTuple):
    """An event that is to be sent: its position, which orders it, and its key in EVENTS."""

    position: int
    ref: bytes


class Missed(NamedTuple):
    """What is to be sent, and the rooms that no longer concern the server."""

    events: list[Due]
    users: list[tuple[int, str, str]]
    """Positions, ids and devices (empty: all) of users of ours whose devices or keys changed."""
    gone: list[str]


def missed(snapshot: Snapshot, server: str, cursor: int, upto: int, our_name: str, hosts: Hosts) -> Missed:
    """What happened for ``server`` after position ``cursor``, in the order of the log."""
    found: list[Due] = []
    gone: list[str] = []
    for room_id in destinations.rooms_of(snapshot, server):
        meta = room_log.room_meta(snapshot, room_id)
        joined = 0 if meta is None else hosts.servers(room_id).get(server, 0)
        if not joined:
            gone.append(room_id)
        if meta is None or meta.last_position <= cursor:
            continue
        found.extend(_of_room(snapshot, meta, server, cursor, our_name, joined))
    found.sort()
    return Missed(found, _changed_users(snapshot, server, cursor, upto, our_name, hosts), gone)


def _of_room(
    snapshot: Snapshot, meta: room_log.RoomMeta, server: str, cursor: int, our_name: str, joined: int
) -> Iterator[Due]:
    first = event_log.last_seq_at(snapshot, meta.nid, meta.last_seq, cursor) + 1
    if meta.last_seq - first >= WHOLE_GAP:
        if joined:
            yield from _heads(snapshot, meta)
        return
    states = StateMap(snapshot.get, meta.nid)
    for record in event_log.room_slice(snapshot, meta.nid, first, meta.last_seq + 1, reverse=True):
        before = _joined_before(snapshot, states, record, server, joined)
        ours = server_name_of(record.sender) == our_name or record.flags & event_log.RELAYED
        if (joined or before) and ours and not record.rejected:
            yield Due(record.position, seq_key(meta.nid, record.seq or 0))
        joined = before


def _heads(snapshot: Snapshot, meta: room_log.RoomMeta) -> Iterator[Due]:
    for event_id, _ in meta.extremities:
        record = event_log.event_by_id(snapshot, event_id)
        if record is not None and record.seq is not None and not record.soft_failed:
            yield Due(record.position, seq_key(meta.nid, record.seq))


def _joined_before(snapshot: Snapshot, states: StateMap, record: EventRecord, server: str, joined: int) -> int:
    """How many members of the server were joined before an event, from how many there were after it."""
    target = record.state_key
    if record.type != "m.room.member" or target is None or server_name_of(target) != server:
        return joined
    after = orjson.loads(record.content_json).get("membership") == "join"
    earlier_id = states.get(record.state_before, "m.room.member", target) if record.state_before else None
    earlier = None if earlier_id is None else event_log.event_by_id(snapshot, earlier_id)
    before = earlier is not None and orjson.loads(earlier.content_json).get("membership") == "join"
    return max(0, joined - after + before)


def _changed_users(
    snapshot: Snapshot, server: str, cursor: int, upto: int, our_name: str, hosts: Hosts
) -> list[tuple[int, str, str]]:
    changed: list[tuple[int, str, str]] = []
    for user_id, viewer in device_lists.changes_between(snapshot, cursor, upto):
        if viewer is None and server_name_of(user_id) == our_name and server in hosts.servers_of_user(user_id):
            position, device_id = device_lists.last_changed_device(snapshot, user_id)
            changed.append((position, user_id, device_id))
    return changed[-MAX_USERS:]
