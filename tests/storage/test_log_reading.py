"""Reading the log from another process than the server's: what is there, and what is wrong with it."""

from pathlib import Path

import lmdb
import pytest
from pytest_twisted import ensureDeferred

from homeserver import cli
from storage.log import rooms
from storage.log.append import Kind
from storage.log.catalog import TABLES
from storage.log.env import open_environment, reading
from storage.log.errors import LogRefused
from storage.log.rooms import RoomMeta, room_meta
from tests.fakes.log import Harness

ROOM = "!room:example.org"


@ensureDeferred
async def test_a_view_beside_the_writer_and_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Harness("lmdb", tmp_path / "log").open()
    batch = log.begin()
    meta = RoomMeta(room_id=ROOM, nid=batch.entry(Kind.ROOM, room_id=ROOM), version="10", last_seq=1, state_root=b"x" * 20)
    rooms.create_room(batch, meta)
    await log.append(batch)
    await log.close()
    with reading(tmp_path / "log") as view:
        assert room_meta(view, ROOM) == meta
    assert cli.main(["room", "explain", "--data-dir", str(tmp_path), ROOM]) == 1
    assert "is damaged (room number" in capsys.readouterr().err


@ensureDeferred
async def test_a_log_of_another_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogRefused, match="there is no log"), reading(tmp_path / "log"):
        pass
    await Harness("lmdb", tmp_path / "log").open().close()
    environment = open_environment(tmp_path / "log")
    with environment.begin(write=True) as txn:
        txn.drop(environment.open_db(TABLES[-1].name.encode(), txn=txn))
    environment.close()
    with pytest.raises(LogRefused, match="older version"), reading(tmp_path / "log"):
        pass


def test_nothing_can_be_written_through_it(tmp_path: Path) -> None:
    open_environment(tmp_path).close()
    environment = open_environment(tmp_path, readonly=True)
    with pytest.raises(lmdb.ReadonlyError):
        environment.begin(write=True)
    environment.close()
