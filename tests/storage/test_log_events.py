"""Events, rooms and what is derived from them, over both stores; then the check of a directory."""

import json
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from storage.log import collect, events, relations, rooms, state_map, transactions
from storage.log.append import Kind, Log
from storage.log.catalog import EVENT_IDS, EVENTS, LOG, NODES, ROOM_NIDS, TIMESTAMPS, Table
from storage.log.check import Inspection, check_directory_log, check_log
from storage.log.events import EventRecord
from storage.log.keys import part, seq_key, u64
from storage.log.relations import Relation
from storage.log.rooms import MembershipRecord, RoomMeta
from tests.fakes.log import Harness, message, spliced

ROOM = "!room:example.org"


class Writer:
    """A room without rules: puts what it is told, state and meta kept right."""

    def __init__(self, log: Log) -> None:
        self.log = log
        batch = log.begin()
        nid = batch.entry(Kind.ROOM, room_id=ROOM)
        self.meta = RoomMeta(room_id=ROOM, nid=nid, version="12")
        rooms.create_room(batch, self.meta)
        log.append(batch)

    def put(self, event_id: str, *, seq: int | None = None, **fields: Any) -> EventRecord:
        batch = self.log.begin()
        before = self.meta.state_root
        if "state_key" in fields:
            nodes: dict[bytes, bytes] = {}
            states = state_map.StateMap(batch, self.meta.nid)
            change = {(fields.get("type", "m.room.message"), fields["state_key"]): event_id}
            self.meta.state_root = states.set(before, change, nodes)
            state_map.put_nodes(batch, self.meta.nid, nodes)
        if seq is None:
            seq = self.meta.last_seq = self.meta.last_seq + 1
        event = message(event_id, state_before=before, state_after=self.meta.state_root, **fields)
        record = events.put_event(batch, self.meta.nid, seq, event)
        rooms.put_room(batch, self.meta)
        self.log.append(batch)
        return record

    async def settle(self) -> None:
        await self.log.append(self.log.begin())


@ensureDeferred
async def test_a_record_gives_back_what_was_put(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    writer.put("$create", type="m.room.create", state_key="", without_room_id=True)
    record = writer.put(
        '$e"1',
        content={"body": 'ä"\\'},
        sender='@q"uote:x',
        state_key="k",
        txn=("DEV", "txn1"),
        type="t",
        depth=2**60,
    )
    pending = events.event_by_id(log, '$e"1')
    assert pending is not None and pending.data == record.data
    await writer.settle()
    with log.snapshot() as snapshot:
        found = events.event_by_id(snapshot, '$e"1')
        assert found is not None
        assert (found.event_id, found.room_id, found.sender, found.type) == ('$e"1', ROOM, '@q"uote:x', "t")
        assert (found.state_key, found.redacts, found.txn, found.redacted_by) == ("k", None, ("DEV", "txn1"), None)
        assert (found.seq, found.room_nid, found.depth, found.origin_server_ts) == (2, 1, 2**60, 1000)
        assert (found.state_before, found.state_after) == (record.state_before, writer.meta.state_root)
        assert found.state_before != found.state_after != b""
        assert json.loads(found.content_json) == {"body": 'ä"\\'}
        assert json.loads(found.client_json(True, b'{"age":1}')) == {
            "content": {"body": 'ä"\\'},
            "event_id": '$e"1',
            "origin_server_ts": 1000,
            "room_id": ROOM,
            "sender": '@q"uote:x',
            "state_key": "k",
            "type": "t",
            "unsigned": {"age": 1},
        }
        create = events.event_by_id(snapshot, "$create")
        assert create is not None and b"room_id" not in create.pdu
        assert create.state_before == b"" and create.state_after == record.state_before
        assert json.loads(create.client_json(True))["room_id"] == create.room_id == ROOM
        assert "room_id" not in json.loads(create.client_json(False))
        assert events.event_by_id(snapshot, "$other") is None
    await log.close()


@ensureDeferred
async def test_rooms_are_read_in_order_backfilled_history_first(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    for number in range(1, 6):
        writer.put(f"$e{number}", origin_server_ts=100 * number)
    position = log._next
    for seq in (0, -1, -2):
        writer.put(f"$e{seq}", seq=seq, origin_server_ts=seq)
    writer.put("$e6", origin_server_ts=50)
    await writer.settle()
    nid = writer.meta.nid
    with log.snapshot() as snapshot:

        def ids(start: int, stop: int, **options: Any) -> list[int]:
            return [int(r.event_id[2:]) for r in events.room_slice(snapshot, nid, start, stop, **options)]

        assert ids(-9, 9) == [-2, -1, 0, 1, 2, 3, 4, 5, 6]
        assert ids(-1, 4, reverse=True, limit=3) == [3, 2, 1]
        assert events.last_seq_at(snapshot, nid, 6, position) == 5
        assert events.last_seq_at(snapshot, nid, 6, 0) == 0
        assert events.last_seq_at(snapshot, nid, 6, log.position) == 6
        assert next(events.event_near(snapshot, nid, 150, forward=True)) == (200, 2)
        assert next(events.event_near(snapshot, nid, 150, forward=False)) == (100, 1)
        assert next(events.event_near(snapshot, nid, -1, forward=False)) == (-1, -1)
        assert next(events.event_near(snapshot, nid, 999, forward=True), None) is None
    kinds = [entry.kind for _, entries in harness.released for entry in entries]
    assert kinds.count(Kind.BACKFILL) == 3 and kinds.count(Kind.EVENT) == 6
    await log.close()


@ensureDeferred
async def test_an_outlier_is_found_by_id_and_can_take_its_place_later(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    batch = log.begin()
    events.put_outlier(batch, writer.meta.nid, message("$o", flags=events.REJECTED))
    await log.append(batch)
    record = events.event_by_id(log, "$o")
    assert record is not None and record.seq is None and record.rejected and record.flags & events.OUTLIER
    assert events.place_of(log, "$o") == (1, None)
    writer.put("$o")
    await writer.settle()
    record = events.event_by_id(log, "$o")
    assert record is not None and record.seq == 1 and not record.flags & events.OUTLIER
    with log.snapshot() as snapshot:
        assert not check_log(snapshot).problems
    await log.close()


@ensureDeferred
async def test_f03_redaction_takes_the_content_out_of_the_store(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    writer.put("$root")
    relation = Relation("$root", "m.thread", "m.room.message")
    record = writer.put("$secret", content={"body": "hidden-words"}, relation=relation)
    await writer.settle()
    batch = log.begin()
    pdu, spans = spliced({"content": {}, "room_id": ROOM, "sender": "@alice:example.org", "type": "m.room.message"})
    events.redact_record(batch, record, pdu, spans, "$redaction", relation)
    await log.append(batch)
    with log.snapshot() as snapshot:
        found = events.event_by_id(snapshot, "$secret")
        assert found is not None and found.redacted and found.redacted_by == "$redaction"
        assert found.position == record.position and b"hidden-words" not in found.data
        assert list(relations.children(snapshot, "$root")) == []
        assert relations.thread_of(snapshot, "$root") is None
        assert list(relations.threads(snapshot, writer.meta.nid, 99)) == []
        assert not check_log(snapshot).problems
    await log.close()


@ensureDeferred
async def test_relations_and_threads_by_latest_reply(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    for event_id, parent in [("$a", ""), ("$b", ""), ("$a1", "$a"), ("$b1", "$b"), ("$a2", "$a")]:
        relation = Relation(parent, "m.thread", "m.room.message") if parent else None
        writer.put(event_id, relation=relation)
    writer.put("$r", relation=Relation("$a", "m.annotation", "m.reaction", "+"))
    await writer.settle()
    with log.snapshot() as snapshot:
        assert list(relations.threads(snapshot, 1, 99)) == [(5, "$a"), (4, "$b")]
        thread = relations.thread_of(snapshot, "$a")
        assert thread is not None and (thread.count, thread.last_seq) == (2, 5)
        assert [child.event_id for child in relations.children(snapshot, "$a", "m.thread")] == ["$a1", "$a2"]
        assert {child.event_id for child in relations.children(snapshot, "$a")} == {"$a1", "$a2", "$r"}
    await log.close()


@ensureDeferred
async def test_memberships_by_user(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    for number, user in enumerate(["@a:x", "@a:xy", "@" + "l" * 250 + ":x"]):
        for room in ("!1:x", "!2:x"):
            rooms.put_membership(batch, user, MembershipRecord(room, "join", number, "$e", user))
    await log.append(batch)
    batch = log.begin()
    assert rooms.forget(batch, "@a:x", "!1:x") and not rooms.forget(batch, "@b:x", "!1:x")
    await log.append(batch)
    with log.snapshot() as snapshot:
        found = rooms.membership_of(snapshot, "@a:x")
        assert {room: record.forgotten for room, record in found.items()} == {"!1:x": True, "!2:x": False}
        assert len(rooms.membership_of(snapshot, "@" + "l" * 250 + ":x")) == 2
    await log.close()


@ensureDeferred
async def test_transactions_are_kept_apart_and_pruned_by_age(harness: Harness) -> None:
    log = harness.open()
    batch = log.begin()
    transactions.put_transaction(batch, "@a:x", "D", "send/a", "1", b"$one", 5)
    transactions.put_transaction(batch, "@a:x", "E", "send/a", "1", b"$two", 9)
    await log.append(batch)
    assert transactions.get_transaction(log, "@a:x", "D", "send/a", "1") == b"$one"
    assert transactions.get_transaction(log, "@a:x", "D", "send/b", "1") is None
    batch = log.begin()
    with log.snapshot() as snapshot:
        step: bytes | None = b"\0"
        while step is not None:
            step = transactions.prune(batch, snapshot, 9, step, limit=1)
    await log.append(batch)
    assert transactions.get_transaction(log, "@a:x", "D", "send/a", "1") is None
    assert transactions.get_transaction(log, "@a:x", "E", "send/a", "1") == b"$two"
    batch = log.begin()
    with log.snapshot() as snapshot:
        assert transactions.forget_device(batch, snapshot, "@a:x", "E") == 1
    await log.append(batch)
    assert transactions.get_transaction(log, "@a:x", "E", "send/a", "1") is None
    await log.close()


DAMAGE: list[tuple[str, Table, Any, bytes | None]] = [
    ("an event is gone", EVENTS, lambda nid: seq_key(nid, 2), None),
    ("an event is cut off", EVENTS, lambda nid: seq_key(nid, 2), b"\1\0"),
    ("an id is missing", EVENT_IDS, lambda nid: part("$e2"), None),
    ("an id points elsewhere", EVENT_IDS, lambda nid: part("$e2"), seq_key(1, 1)),
    ("an id stands for nothing", EVENT_IDS, lambda nid: part("$ghost"), seq_key(1, 1)),
    ("a time stands for nothing", TIMESTAMPS, lambda nid: b"x" * 24, b""),
    ("a room's number is missing", ROOM_NIDS, lambda nid: u64(nid), None),
    ("an entry is missing", LOG, lambda nid: u64(3), None),
    ("an entry is damaged", LOG, lambda nid: u64(3), b"\xff"),
    ("a node is wrong", NODES, lambda nid: u64(nid) + b"n" * 20, b"\0"),
]


@pytest.mark.parametrize("what,table,key,value", DAMAGE, ids=[row[0] for row in DAMAGE])
@ensureDeferred
async def test_the_check_finds_damage_and_rebuilds_indexes(
    lmdb_harness: Harness, what: str, table: Table, key: Any, value: bytes | None
) -> None:
    log = lmdb_harness.open()
    writer = Writer(log)
    for number in range(1, 5):
        writer.put(f"$e{number}", state_key=f"k{number}", relation=Relation("$e1", "m.thread", "t"))
    await writer.settle()
    with log.snapshot() as snapshot:
        assert check_log(snapshot).problems == []
    batch = log.begin()
    if value is None:
        batch.delete(table, key(writer.meta.nid))
    else:
        batch.put(table, key(writer.meta.nid), value)
    await log.append(batch)
    await log.close()
    report = check_directory_log(lmdb_harness.path)
    assert any(problem.table == table.name or table in (EVENTS, LOG) for problem in report.problems), what
    if table.derived:
        again = check_directory_log(
            lmdb_harness.path,
            rebuild=True,
            inspect=lambda record: Inspection(None, Relation("$e1", "m.thread", "t")),
        )
        assert again.problems == [] and again.rebuilt, again.summary()
        assert "no problems" in again.summary()


@ensureDeferred
async def test_the_check_passes_on_what_an_inspection_finds(lmdb_harness: Harness) -> None:
    log = lmdb_harness.open()
    Writer(log).put("$e1")
    await log.close()
    report = check_directory_log(lmdb_harness.path, inspect=lambda record: Inspection("wrong hash"))
    assert [problem.text for problem in report.problems] == ["wrong hash"]
    assert {problem.room_id for problem in report.problems} == {ROOM}


@ensureDeferred
async def test_unreachable_state_nodes_are_collected_beside_normal_work(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "STEP", 3)
    log = harness.open()
    writer = Writer(log)
    for number in range(30):
        writer.put(f"$e{number}", type="m.room.member", state_key=f"@{number}:x")
    garbage: dict[bytes, bytes] = {}
    states = state_map.StateMap(log, writer.meta.nid)
    lost = states.set(writer.meta.state_root, {("m.room.member", f"@{n}:x"): "$gone" for n in range(30)}, garbage)
    batch = log.begin()
    state_map.put_nodes(batch, writer.meta.nid, garbage)
    await log.append(batch)
    suspects = await collect.collect_nodes(log, ROOM)
    assert suspects and all(log.get(NODES, u64(writer.meta.nid) + node) is not None for node in suspects)
    collection = collect.NodeCollection(log, ROOM, suspects)
    steps = 0
    while (going_on := collection.step()) is not None:
        steps += 1
        if steps % 5 == 0 and not collection.deleted:
            writer.put(f"$late{steps}", type="m.room.member", state_key=f"@late{steps}:x")
            writer.put(f"$old{steps}", seq=1 - steps // 5, type="t")
            writer.meta.first_seq = 1 - steps // 5
        if collection.deleted and writer.meta.state_root != lost:
            # The same nodes again, this time as a room's state: they must stay.
            batch = log.begin()
            state_map.put_nodes(batch, writer.meta.nid, garbage)
            writer.meta.state_root = lost
            rooms.put_room(batch, writer.meta)
            log.append(batch)
        await going_on
    assert collection.deleted > 0 and steps > 20 and writer.meta.state_root == lost
    with log.snapshot() as snapshot:
        assert check_log(snapshot).problems == []
        members = dict(state_map.StateMap(snapshot, writer.meta.nid).items(lost, "m.room.member"))
        assert set(members.values()) == {"$gone"}
    await log.close()
    assert await collect_twice(harness) == 0


async def collect_twice(harness: Harness) -> int:
    """Nodes that are left to be collected after a collection of what one before it suspected."""
    log = harness.open()
    suspects = await collect.collect_nodes(log, ROOM)
    suspects = await collect.collect_nodes(log, ROOM, suspects)
    await log.close()
    return len(suspects)


@ensureDeferred
async def test_states_that_are_named_later_or_by_rejected_events_alone_stay(harness: Harness) -> None:
    log = harness.open()
    writer = Writer(log)
    writer.put("$e", type="m.room.topic", state_key="")
    nid = writer.meta.nid
    states = state_map.StateMap(log, nid)
    fetched: dict[bytes, bytes] = {}
    rejected: dict[bytes, bytes] = {}
    to_come = states.set(writer.meta.state_root, {("m.room.name", ""): "$fetched"}, fetched)
    of_rejected = states.set(writer.meta.state_root, {("m.room.name", ""): "$other"}, rejected)
    batch = log.begin()
    state_map.put_nodes(batch, nid, fetched)
    state_map.put_nodes(batch, nid, rejected)
    events.put_outlier(batch, nid, message("$rejected", state_before=of_rejected, state_after=of_rejected))
    await log.append(batch)
    roots = await collect.outlier_roots(log, lambda: True)
    assert roots == {nid: {of_rejected}}
    suspects = await collect.collect_nodes(log, ROOM, frozenset(), roots[nid])
    assert suspects == fetched.keys() and not suspects & rejected.keys()
    # Between two collections an event is placed on the fetched state.
    writer.meta.state_root = to_come
    writer.put("$late")
    await writer.settle()
    assert not await collect.collect_nodes(log, ROOM, suspects, (await collect.outlier_roots(log, lambda: True))[nid])
    for root, name in ((to_come, "$fetched"), (of_rejected, "$other")):
        assert states.get(root, "m.room.name", "") == name
    await log.close()
