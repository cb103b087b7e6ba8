"""The hourly chores: what goes, and what stays."""

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import Clock

from config.schema import Config
from homeserver.upkeep import KEEP_EXPIRED, Upkeep
from storage.log import inbox
from storage.log.append import Log
from storage.memory import MemoryStore, open_memory_log
from storage.tables import access_tokens, devices, refresh_tokens, users
from storage.tables.database import Cursor, Database
from storage.tables.users import UserRow

ALICE = "@alice:x"
NOW = 10**13
OLD = NOW - KEEP_EXPIRED - 1


@pytest.fixture
def log() -> Log:
    return open_memory_log(MemoryStore(reactor), reactor, "e")  # type: ignore[arg-type]


def upkeep(log: Log, database: Database, size: int = Config().limits.max_inbox_size) -> Upkeep:
    return Upkeep(log, database, Clock(), lambda: NOW, size)


@ensureDeferred
async def test_sessions_that_ended_long_ago_are_deleted(log: Log, database: Database) -> None:
    """Refresh token and access token go together, once neither was of use for a month."""
    sessions = {  # device: when the refresh token, the session and the access token end
        "abandoned": (OLD, None, OLD),
        "abandoned session": (None, OLD, OLD),
        "expired lately": (NOW - 1, None, OLD),
        "for ever": (None, None, OLD),
        "access lives on": (OLD, None, NOW + 1),
    }
    plain = {"plain": OLD, "plain, lately": NOW - 1, "plain, for ever": None}

    def fill(cur: Cursor) -> None:
        users.insert_user(cur, UserRow(ALICE, None, 0))
        for number, (device, (refresh_end, session_end, access_end)) in enumerate(sessions.items()):
            devices.ensure_device(cur, ALICE, device, None, 0)
            token = refresh_tokens.insert_refresh_token(cur, b"%d" % number, ALICE, device, refresh_end, session_end)
            access_tokens.insert_access_token(cur, b"%d" % number, ALICE, device, 0, access_end, token)
        for device, end in plain.items():
            devices.ensure_device(cur, ALICE, device, None, 0)
            access_tokens.insert_access_token(cur, device.encode(), ALICE, device, 0, end)

    def left(cur: Cursor) -> list[set[str]]:
        found = []
        for table in ("refresh_tokens", "access_tokens"):
            cur.execute(f"SELECT device_id FROM {table}")
            found.append({row[0] for row in cur.fetchall()})
        return found

    await database.run(fill)
    await upkeep(log, database).round()
    staying = {"expired lately", "for ever", "access lives on"}
    assert await database.run(left) == [staying, staying | {"plain, lately", "plain, for ever"}]


@ensureDeferred
async def test_an_overfull_inbox_loses_its_oldest_messages(
    log: Log, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox.InboxTrim, "STEP", 7)
    counts = {(ALICE, "LOST"): 25, (ALICE, "USED"): 10, ("@bob:x", "LOST"): 11}
    for number in range(25):
        batch = log.begin()
        for device, count in counts.items():
            if number < count:
                inbox.put_message(batch, *device, b"%010d" % number)
        await log.append(batch)
    await upkeep(log, database, size=100).round()

    def numbers(*device: str) -> list[Any]:
        with log.snapshot() as snapshot:
            return [int(message) for _, message in inbox.messages(snapshot, *device, 0, 2**62, 100)]

    assert numbers(ALICE, "LOST") == list(range(15, 25))
    assert numbers(ALICE, "USED") == list(range(10))
    assert numbers("@bob:x", "LOST") == list(range(1, 11))
