"""States and auth chains that other servers ask for are read a part at a time, and are whole or not told at all."""

from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred

from federation.rules.errors import MatrixError
from homeserver.rooms import peer_reading
from storage.log.catalog import EVENT_IDS
from storage.log.keys import part
from tests.fakes.town import Town, Twin


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def a(town: Town) -> Twin:
    return town.server("a")


@pytest.fixture
def b(town: Town) -> Twin:
    return town.server("b")


@pytest.fixture
def room(town: Town, a: Twin, b: Twin) -> str:
    room_id = a.create("alice")
    for number in range(10):
        a.join(f"user{number}", room_id)
    b.join("bob", room_id, via=a)
    town.settle()
    return room_id


READS = pytest.mark.parametrize("read", ["state", "state_ids", "event_auth"])


def begun(a: Twin, read: str, room: str) -> Deferred[Any]:
    return Deferred.fromCoroutine(getattr(a.federated.reading, read)("b", room, *a.heads(room)))


@READS
def test_others_have_their_turns_and_the_answer_is_the_same(
    town: Town, a: Twin, room: str, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = town.run(begun(a, read, room))
    monkeypatch.setattr(peer_reading, "PART", 2)
    reading = begun(a, read, room)
    assert not reading.called
    message = a.say("alice", room, "meanwhile")
    found = town.run(reading)
    assert _plain(found) == _plain(at_once) and all(_plain(found).values())
    assert message not in str(_plain(found))


def _plain(answer: dict[str, Any]) -> dict[str, list[Any]]:
    """As it goes out, without its order."""
    return {key: sorted(values, key=str) for key, values in orjson.loads(orjson.dumps(answer)).items()}


def test_a_state_that_loses_an_event_meanwhile_is_not_told(
    town: Town, a: Twin, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_reading, "PART", 2)
    reading = begun(a, "state", room)
    assert not reading.called
    batch = a.log.begin()
    batch.delete(EVENT_IDS, part(a.state_of(room)["m.room.member", "@user3:a"]))
    a.log.append(batch)
    with pytest.raises(MatrixError) as told:
        town.run(reading)
    assert told.value.status == 404
