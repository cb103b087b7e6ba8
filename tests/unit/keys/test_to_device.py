"""Messages to devices: each delivered once, none to those who cannot receive it."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from federation.rules.errors import MatrixError
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.to_device import Messages, ToDevice
from storage.log import inbox
from storage.log.append import Batch
from storage.log.catalog import INBOX
from storage.memory import MemoryStore, open_memory_log
from storage.tables.database import Database

ALICE, BOB = "@alice:here", "@bob:here"


class Here:
    """A server that can be started again on what it stored."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = MemoryStore(reactor)  # type: ignore[arg-type]
        self.remote: list[Messages] = []
        self.start()

    def start(self) -> None:
        self.log = open_memory_log(self.store, reactor)  # type: ignore[arg-type]
        self.devices = DeviceDirectory(self.database)
        self.to_device = ToDevice("here", self.log, self.devices, self)

    def queue(self, batch: Batch, sender: str, type_: str, messages: Messages) -> None:
        self.remote.append(messages)

    async def send(self, messages: Messages, txn_id: str = "t", type_: str = "m.x", device: str = "PHONE") -> None:
        await self.to_device.send(ALICE, device, type_, txn_id, messages)

    def inbox(self, user_id: str, device_id: str) -> list[Any]:
        with self.log.snapshot() as snapshot:
            rows = inbox.messages(snapshot, user_id, device_id, 0, 2**62, 1000)
            return [orjson.loads(message)["content"]["n"] for _, message in rows]

    def rows(self) -> int:
        with self.log.snapshot() as snapshot:
            return len(list(snapshot.range(INBOX, b"\0", b"\xff" * 500)))


@pytest.fixture
def here(database: Database, people: Callable[..., None]) -> Here:
    people(alice=["PHONE"], bob=["B1", "B2"], gone=["G"])
    return Here(database)


@ensureDeferred
async def test_one_device_or_all_of_them(here: Here) -> None:
    await here.send({BOB: {"B1": {"n": 1}}}, "1")
    await here.send({BOB: {"*": {"n": 2}}}, "2")
    await here.send({BOB: {"*": {"n": 3}, "B2": {"n": 4}}, ALICE: {"PHONE": {"n": 5}}}, "3")
    assert here.inbox(BOB, "B1") == [1, 2, 3]
    assert here.inbox(BOB, "B2") == [2, 4]
    assert here.inbox(ALICE, "PHONE") == [5]
    with here.log.snapshot() as snapshot:
        ((_, message),) = inbox.messages(snapshot, ALICE, "PHONE", 0, 2**62, 10)
    assert orjson.loads(message) == {"type": "m.x", "sender": ALICE, "content": {"n": 5}}


@ensureDeferred
async def test_a_transaction_id_delivers_once_also_after_a_restart_and_at_the_same_time(here: Here) -> None:
    messages = {BOB: {"B1": {"n": 1}}}
    await gatherResults([Deferred.fromCoroutine(here.send(messages)) for _ in range(3)])
    here.start()
    await here.send(messages)
    assert here.inbox(BOB, "B1") == [1]
    await here.send(messages, device="OTHER")
    await here.send(messages, type_="m.y")
    assert here.inbox(BOB, "B1") == [1, 1, 1]


@ensureDeferred
async def test_d12_nothing_is_left_for_those_who_cannot_receive(here: Here, postgres: Callable[..., Any]) -> None:
    postgres("UPDATE users SET deactivated = true WHERE user_id = '@gone:here'")
    far = {"@carol:far": {"C": {"n": 1}}, "nonsense": {"*": {"n": 1}}}
    await here.send(
        {"@nobody:here": {"*": {"n": 1}, "X": {"n": 1}}, "@gone:here": {"G": {"n": 1}, "*": {"n": 1}},
         BOB: {"UNKNOWN": {"n": 1}}} | far
    )  # fmt: skip
    assert here.rows() == 0
    assert here.remote == [far]


@ensureDeferred
async def test_new_and_deleted_devices(here: Here, postgres: Callable[..., Any]) -> None:
    await here.send({BOB: {"*": {"n": 1}}}, "1")
    postgres("DELETE FROM devices WHERE device_id = 'B1'")
    postgres("INSERT INTO devices (user_id, device_id, created_ts) VALUES (%s, 'B3', 0)", BOB)
    here.devices.changed(BOB, "B1")
    await here.send({BOB: {"*": {"n": 2}}}, "2")
    assert [here.inbox(BOB, name) for name in ("B1", "B2", "B3")] == [[1], [1, 2], [2]]


@ensureDeferred
async def test_what_is_acknowledged_is_deleted(here: Here) -> None:
    for n in range(5):
        await here.send({BOB: {"B1": {"n": n}}}, str(n))
    batch = here.log.begin()
    with here.log.snapshot() as snapshot:
        positions = [position for position, _ in inbox.messages(snapshot, BOB, "B1", 0, 2**62, 10)]
        assert inbox.delete_messages(batch, snapshot, BOB, "B1", positions[2], 100) == 3
    await here.log.append(batch)
    assert here.inbox(BOB, "B1") == [3, 4]


@ensureDeferred
async def test_limits(here: Here) -> None:
    for txn_id, type_ in (("", "m.x"), ("t" * 256, "m.x"), ("t", ""), ("t", "é" * 128)):
        with pytest.raises(MatrixError):
            await here.send({BOB: {"*": {"n": 1}}}, txn_id, type_)
    assert here.rows() == 0
