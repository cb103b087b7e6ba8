"""The copy of other servers' device lists: applied, found out of date, fetched again; and what hostile servers try."""

from typing import Any

import orjson
import pytest

from federation.outbound.calls import DevicesAnswer
from federation.rules.errors import MatrixError
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.keys.peer_keys import PeerKeys
from homeserver.keys.remote_shapes import MAX_DEVICES
from tests.fakes.outbound import Sending
from tests.fakes.world import SERVER

R = "@r:one"


def keys_of(device_id: str, key: str = "k") -> dict[str, Any]:
    return {"user_id": R, "device_id": device_id, "algorithms": [], "keys": {f"ed25519:{device_id}": key}, "signatures": {}}


class Source:
    """Another server's answers to `/user/devices`: ``devices`` by ID, or what is raised."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.devices: dict[str, dict[str, Any]] = {"D1": keys_of("D1")}
        self.stream_id = 10
        self.problem: Exception | None = None
        self.on_ask: Any = lambda: None

    async def user_devices(self, server: str, user_id: str) -> DevicesAnswer:
        self.asked.append(user_id)
        if self.problem is not None:
            raise self.problem
        answer = DevicesAnswer(
            user_id, self.stream_id, [{"device_id": name, "keys": keys} for name, keys in self.devices.items()]
        )
        self.on_ask()
        return answer


class Here(Sending):
    """A server that shares a room with ``@r:one``."""

    def open(self) -> "Here":
        self.begin()
        self.source = Source()
        self.keys = self.make()
        self.feed.follow(self.keys.follow)
        self.room_id = self.shared("one")
        return self

    def make(self) -> PeerKeys:
        source: Any = self.source
        return PeerKeys(SERVER, self.log, self.memberships, self.hosts, source, self.clock, self.now_ms, lambda: 0.5)

    def told(self, stream_id: Any, previous: Any = (), device_id: Any = "D1", **content: Any) -> None:
        """An update of R's server."""
        body = {"user_id": R, "device_id": device_id, "stream_id": stream_id, "prev_id": list(previous), **content}
        self.keys.devices.update(R, body)
        self.settle()

    def known(self) -> dict[str, Any]:
        row = self.keys.devices.get(R)
        return {} if row is None else {name: orjson.loads(keys) for name, keys in row.devices.items()}

    def is_stale(self) -> bool:
        row = self.keys.devices.get(R)
        return row is not None and row.stale

    def changed(self, since: str) -> list[str]:
        lists = self.synced("a", since).get("device_lists", {})
        found: list[str] = lists.get("changed", [])
        return found


@pytest.fixture
def here() -> Here:
    return Here().open()


def test_the_first_update_fetches_the_list_and_the_next_is_applied(here: Here) -> None:
    since = here.synced("a")["next_batch"]
    here.told(10)
    assert here.source.asked == [R]
    assert here.known().keys() == {"D1"}
    assert here.changed(since) == [R]
    since = here.synced("a", since)["next_batch"]
    here.told(11, [10], "D2", keys=keys_of("D2"), device_display_name="Phone")
    assert here.source.asked == [R]
    assert here.known()["D2"]["unsigned"] == {"device_display_name": "Phone"}
    assert here.changed(since) == [R]
    here.told(12, [11], "D2", deleted=True)
    assert here.known().keys() == {"D1"}
    assert here.source.asked == [R]


def test_a_gap_fetches_the_list_again(here: Here) -> None:
    here.told(10)
    here.source.devices["D7"] = keys_of("D7")
    here.source.stream_id = 17
    here.told(17, [16], "D7", keys=keys_of("D7"))
    assert here.source.asked == [R, R]
    assert here.known().keys() == {"D1", "D7"}
    here.told(18, [17], "D1", deleted=True)
    assert here.source.asked == [R, R]


def test_the_same_update_twice_is_one_and_an_altered_one_under_its_number_is_not_believed(here: Here) -> None:
    here.told(10)
    here.told(11, [10], "D2", keys=keys_of("D2"))
    here.told(11, [10], "D2", keys=keys_of("D2"))
    assert len(here.source.asked) == 1
    here.told(11, [10], "D2", keys=keys_of("D2", "other"))
    assert len(here.source.asked) == 2


def test_what_comes_during_a_fetch_has_it_fetched_once_more(here: Here) -> None:
    def meanwhile() -> None:
        here.source.on_ask = lambda: None
        here.keys.devices.update(R, {"user_id": R, "device_id": "D2", "stream_id": 11, "prev_id": [10]})
        here.source.devices["D2"] = keys_of("D2")

    here.source.on_ask = meanwhile
    here.told(10)
    assert here.source.asked == [R, R]
    assert here.known().keys() == {"D1", "D2"}
    assert not here.is_stale()


def test_a_silent_server_is_asked_again_when_it_shows_life_or_after_a_restart(here: Here) -> None:
    since = here.synced("a")["next_batch"]
    here.source.problem = PeerUnreachable("one", "connection refused")
    here.told(10)
    assert here.changed(since) == [R], "clients hear of it though the list could not be fetched"
    here.settle(20)
    assert here.source.asked == [R]
    here.source.problem = None
    here.keys.resync.alive("one")
    here.settle()
    assert here.known().keys() == {"D1"}
    here.source.problem = PeerUnreachable("one", "connection refused")
    here.told(15, [14])
    assert here.is_stale()
    here.keys.stop()
    here.source.problem = None
    here.keys = here.make()
    here.keys.start()
    here.settle()
    assert not here.is_stale()


def test_a_refused_list_waits_longer_each_time(here: Here) -> None:
    here.source.problem = RequestRefused("one", 404, "M_NOT_FOUND", "no")
    here.told(10)
    here.keys.resync.alive("one")
    here.settle(25)
    assert len(here.source.asked) == 1
    here.settle(10)
    assert len(here.source.asked) == 2
    here.settle(40)
    assert len(here.source.asked) == 2


def test_devices_are_forgotten_with_the_last_shared_room(here: Here) -> None:
    here.told(10)
    here.comes(R, here.room_id, "leave")
    assert here.keys.devices.get(R) is None
    here.comes(R, here.room_id)
    here.told(11)
    assert here.known()
    here.leave("a", here.room_id)
    here.settle()
    assert here.keys.devices.get(R) is None
    here.told(12)
    assert here.keys.devices.get(R) is None


def test_keys_are_answered_from_the_copy(here: Here) -> None:
    query = here.keys.remote_keys.query
    answer = orjson.loads(orjson.dumps(here.run(query("one", {R: []}, 1000)).keys))
    assert answer["device_keys"][R]["D1"]["keys"] == {"ed25519:D1": "k"}
    here.source.problem = PeerUnreachable("one", "away")
    again = here.run(query("one", {R: ["D1", "D9"]}, 1000))
    assert (orjson.loads(orjson.dumps(again.keys)), again.failure) == (answer, None)
    here.told(15, [14])
    stale = here.run(query("one", {R: []}, 1000))
    assert orjson.loads(orjson.dumps(stale.keys)) == answer
    assert stale.failure is not None


# -- hostile servers


@pytest.mark.parametrize("stream_id", [True, -1, 1.5, "1", None, 2**60, [1]])
def test_d03_numbers_that_are_none_are_refused(here: Here, stream_id: Any) -> None:
    with pytest.raises(MatrixError):
        here.told(stream_id)
    assert here.source.asked == []


@pytest.mark.parametrize("device_id", ["", "x" * 256, "\U0001f600" * 64, 5, None])
def test_d03_device_ids_have_a_bound(here: Here, device_id: Any) -> None:
    with pytest.raises(MatrixError):
        here.told(11, [10], device_id)


def test_d03_a_list_of_ten_thousand_devices_is_not_kept(here: Here) -> None:
    here.source.devices = {f"D{n}": keys_of(f"D{n}") for n in range(10 * MAX_DEVICES)}
    here.told(10)
    assert here.known() == {}
    assert here.is_stale()


def test_d03_keys_of_somebody_else_are_left_out(here: Here) -> None:
    here.source.devices = {"D1": keys_of("D1"), "D2": {**keys_of("D2"), "user_id": "@a:x"}, "D3": keys_of("D4")}
    here.told(10)
    assert here.known().keys() == {"D1"}
    with pytest.raises(MatrixError):
        here.told(11, [10], "D2", keys={**keys_of("D2"), "user_id": "@a:x"})
    with pytest.raises(MatrixError):
        here.told(11, [10], "D2", keys=keys_of("D2", "x" * 20_000))
    assert here.known().keys() == {"D1"}


def test_d03_cross_signing_keys_of_somebody_else_are_refused(here: Here) -> None:
    here.told(10)
    master = {"user_id": R, "usage": ["master"], "keys": {"ed25519:M": "M"}}
    here.keys.devices.signing_keys(R, {"user_id": R, "master_key": master})
    for wrong in ({**master, "user_id": "@a:x"}, {**master, "usage": ["self_signing"]}, "M", {**master, "keys": {}}):
        with pytest.raises(MatrixError):
            here.keys.devices.signing_keys(R, {"user_id": R, "master_key": wrong})
    row = here.keys.devices.get(R)
    assert row is not None
    assert orjson.loads(row.master or b"null") == master


def test_strangers_are_not_kept(here: Here) -> None:
    here.keys.devices.update("@stranger:one", {"device_id": "D", "stream_id": 1})
    here.settle()
    assert here.keys.devices.get("@stranger:one") is None
    assert here.source.asked == []
