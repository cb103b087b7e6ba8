"""What a deleted room took on disk is used again."""

from pytest_twisted import ensureDeferred

from storage.log import events, removal, rooms, state_map
from storage.log.append import Kind, Log
from storage.log.removal import Removal
from storage.log.rooms import RoomMeta
from tests.fakes.log import Harness, message

EVENTS = 400


def used(log: Log) -> int:
    """Bytes of the file that were ever written to."""
    return log._store.stats()["used"]  # type: ignore[attr-defined,no-any-return]


async def fill(log: Log, room_id: str) -> RoomMeta:
    """A room of events with state."""
    batch = log.begin()
    meta = RoomMeta(room_id=room_id, nid=batch.entry(Kind.ROOM, room_id=room_id), version="10")
    rooms.create_room(batch, meta)
    states = state_map.StateMap(log, meta.nid)
    for number in range(EVENTS):
        nodes: dict[bytes, bytes] = {}
        event_id = f"${room_id[1:]}{number}"
        before = meta.state_root
        meta.state_root = states.set(before, {("t", str(number)): event_id}, nodes)
        state_map.put_nodes(batch, meta.nid, nodes)
        meta.last_seq = number + 1
        event = message(event_id, room_id, type="t", state_key=str(number), content={"body": "x" * 500},
                        state_before=before, state_after=meta.state_root)  # fmt: skip
        events.put_event(batch, meta.nid, meta.last_seq, event)
        if number % 50 == 49:
            rooms.put_room(batch, meta)
            await log.append(batch)
            batch = log.begin()
    await log.append(batch)
    return meta


async def delete(log: Log, meta: RoomMeta) -> Removal:
    """All of it."""
    job = Removal(room_id=meta.room_id, local=":example.org", started=1)
    batch = log.begin()
    with log.snapshot() as snapshot:
        removal.begin(batch, snapshot, job, meta)
    await log.append(batch)
    going_on = True
    while going_on:
        batch = log.begin()
        with log.snapshot() as snapshot:
            going_on = removal.step(batch, snapshot, job, lambda *_: None)
        await log.append(batch)
    return job


@ensureDeferred
async def test_pages_of_a_deleted_room_are_used_again(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open(map_size=1 << 26)
    kept = await fill(log, "!kept:example.org")
    small = used(log)
    meta = await fill(log, "!first:example.org")
    large = used(log)
    assert large > 1.5 * small
    for name in ("!second:example.org", "!third:example.org", "!fourth:example.org"):
        job = await delete(log, meta)
        assert job.removed > 3 * EVENTS
        meta = await fill(log, name)
        # Free pages come in pieces, and the ones that the last commits left are not free yet.
        assert used(log) < large + 0.3 * (large - small)
    with log.snapshot() as snapshot:
        assert sum(1 for _ in events.room_slice(snapshot, kept.nid, 1, EVENTS + 1)) == EVENTS
    await log.close()
