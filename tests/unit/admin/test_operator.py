"""The operator's commands that ask the running server: the socket, peers, pins."""

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from config.schema import Config
from federation.rules.errors import MatrixError
from federation.wire.destinations import InMemoryDestinations
from federation.wire.pins import row_of_pin
from federation.wire.well_known import Pin
from homeserver import cli
from homeserver.admin import peer_text
from homeserver.admin.operator_socket import PREFIX, OperatorSocket
from homeserver.admin.peers import PeerOperations
from homeserver.admin.pins import PinOperations
from homeserver.admin.running_server import NotAnswered, ask
from homeserver.web.call import Call
from homeserver.web.limits import Limits
from homeserver.web.router import Auth, Route, Router
from storage.tables.database import Database
from storage.tables.well_known_pins import pin_of_domain, upsert_pin
from tests.fakes.outbound import Sending


class Looks:
    """Stands for the resolver's caches."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, host: str) -> None:
        self.forgotten.append(host)

    def verdict_of(self, host: str) -> None:
        return None


def router(*routes: Route) -> Router:
    return Router(routes, None, Limits({}, lambda: 0.0))  # type: ignore[arg-type]


def call(path: str, **params: str) -> Call:
    made = Call("GET", path, {}, b"", "")
    made.params = params
    return made


class Watched:
    """A server with queues, and its operations on peers."""

    def __init__(self) -> None:
        self.world = Sending().begin()
        self.looks = Looks()
        self.back_offs = InMemoryDestinations(self.world.now_ms, lambda: 0.5, 60_000, 2.0, 600_000)
        self.operations = PeerOperations(self.world.outbound, self.back_offs, self.looks)  # type: ignore[arg-type]

    def all(self) -> dict[str, dict[str, Any]]:
        return {peer["server"]: peer for peer in self.operations.all(call("/peers"))["peers"]}


def test_peers_are_told_how_they_fare() -> None:
    watched = Watched()
    world = watched.world
    room = world.shared("dead", "live")
    began = world.now_ms()
    world.peers.dead.add("dead")
    for number in range(3):
        world.say("a", room, f"{number}")
        world.settle(1)
    peers = watched.all()
    assert (peers["live"]["state"], peers["live"]["pdus"], peers["live"]["failures"]) == ("well", 0, 0)
    assert peers["live"]["last_success"] >= began and peers["live"]["failing_since"] == 0
    dead = peers["dead"]
    assert (dead["state"], dead["pdus"], dead["behind"], dead["reason"]) == ("failing", 3, True, "dead: connection refused")
    assert began <= dead["failing_since"] <= dead["last_failure"] < dead["retry_at"]
    first = dead["failing_since"]
    world.settle(3600)
    dead = watched.all()["dead"]
    assert (dead["state"], dead["pdus"], dead["failing_since"]) == ("dormant", 0, first)
    text = peer_text.table(list(watched.all().values())).splitlines()
    assert [line.split()[0] for line in text[1:3]] == ["dead", "live"]
    assert text[-1] == "servers: 2, not reached: 1"
    shown = watched.operations.one(call("/peers/dead", server="dead"))
    assert "dead: dormant" in peer_text.detail(shown) and "rooms shared with it: 1" in peer_text.detail(shown)


def test_since_when_a_peer_fails_survives_a_restart() -> None:
    watched = Watched()
    world = watched.world
    room = world.shared("dead")
    world.peers.dead.add("dead")
    world.say("a", room, "x")
    world.settle(5)
    before = watched.all()["dead"]["failing_since"]
    again = world.again()
    (after,) = again.outbound.peers()
    assert before and after["failing_since"] == before


def test_retry_does_not_wait() -> None:
    watched = Watched()
    world = watched.world
    room = world.shared("dead")
    world.peers.dead.add("dead")
    world.say("a", room, "late")
    world.settle(20_000)
    watched.back_offs.failed("dead", "no route")
    assert "requests to it wait" in peer_text.detail(watched.operations.one(call("/", server="dead")))
    world.peers.dead.clear()
    world.settle(1)
    assert world.peers.texts("dead") == []
    watched.operations.retry(call("/", server="dead"))
    world.settle(1)
    assert world.peers.texts("dead") == ["late"]
    assert watched.back_offs.refused_until("dead") is None
    assert watched.looks.forgotten == ["dead"]
    assert watched.all()["dead"]["state"] == "well"


def test_servers_that_were_never_sent_to() -> None:
    watched = Watched()
    for operation in watched.operations.one, watched.operations.retry:
        with pytest.raises(MatrixError) as refused:
            operation(call("/", server="stranger"))
        assert refused.value.status == 404
    assert watched.all() == {}
    assert "Nothing was ever sent" in peer_text.table([])


@ensureDeferred
async def test_forgetting_a_pin(database: Database) -> None:
    pin = row_of_pin(Pin({"ed25519:a": b"k" * 32}, "hs.example.org:443", 5))
    await database.run(lambda cur: upsert_pin(cur, "forgetting.example", pin, 1))
    looks = Looks()
    operations = PinOperations(database, looks)  # type: ignore[arg-type]
    assert await operations.forget(call("/", server="forgetting.example:8448")) == {"server_name": "forgetting.example"}
    assert await database.run(lambda cur: pin_of_domain(cur, "forgetting.example")) is None
    assert looks.forgotten == ["forgetting.example"]
    for server, status in ("forgetting.example", 404), ("not a name", 400):
        with pytest.raises(MatrixError) as refused:
            await operations.forget(call("/", server=server))
        assert refused.value.status == status


@ensureDeferred
async def test_the_socket_answers_its_owner_alone_however_deep_the_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (deep / "operator.sock").write_text("left over")
    (deep / "operator.sock.lock").symlink_to("1")  # a process that lives, but not a server of this directory

    def hello(got: Call) -> dict[str, Any]:
        if got.params["name"] == "nobody":
            raise MatrixError(404, "M_NOT_FOUND", "There is nobody")
        return {"hello": got.params["name"], "said": got.json_object()}

    door = OperatorSocket(reactor, deep, router(Route("POST", f"{PREFIX}/hello/{{name}}", hello, Auth.NONE)))
    door.start()
    config = Config(data_dir=str(deep))
    try:
        assert (deep / "operator.sock").stat().st_mode & 0o777 == 0o600
        answer = await deferToThread(ask, config, "POST", "/hello/a%2Fb", {"x": 1})
        assert answer == {"hello": "a/b", "said": {"x": 1}}
        for path, why in ("/hello/nobody", "There is nobody"), ("/other", "another version"):
            with pytest.raises(NotAnswered, match=why):
                await deferToThread(ask, config, "POST", path, {})
    finally:
        await door.stop(1)
    assert list(deep.iterdir()) == []
    with pytest.raises(NotAnswered, match="is it running"):
        ask(config, "POST", "/hello/x", {})


def test_flags_of_commands_below_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(f"server_name: example.org\ndata_dir: {tmp_path}/nowhere\n")
    config = ["--config", str(tmp_path / "c.yaml")]
    for words in (
        ["peers", "--json", *config],
        ["peers", *config, "--json", "retry", "x"],
        ["peers", "retry", "x", "--json", *config],
        ["peers", "--json", "show", "x", *config],
        ["well-known", *config, "forget", "--json", "x"],
    ):
        assert cli.main(words) == 1
        (problem,) = json.loads(capsys.readouterr().out)["problems"]
        assert f"{tmp_path}/nowhere" in problem
