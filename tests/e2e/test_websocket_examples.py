"""The two example clients of the WebSocket protocol against a whole server on a loopback socket."""

import importlib.util
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from config.schema import Config, Listener
from federation.rules.signing import SigningKey
from homeserver.main import Homeserver
from homeserver.rooms.create import Create, Wish
from homeserver.services import Services
from homeserver.start import wall_clock_ms
from homeserver.sync.stream import Code
from homeserver.web.call import Call, Requester
from homeserver.web.http import HttpServer
from homeserver.web.listeners import Listeners
from homeserver.web.socket import SocketServer, SocketSettings
from storage.memory import MemoryLog
from storage.tables.database import Database

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


class Server:
    """A homeserver with sockets, and the accounts that the tests use."""

    def __init__(self, database: Database) -> None:
        key = SigningKey.from_seed(b"k" * 32, "test", "ed25519:k")
        config = Config(server_name="test", enable_registration=True, enable_registration_without_verification=True)
        log: Any = MemoryLog(reactor)
        self.services = Services(config, reactor, log, database, [key], wall_clock_ms)
        homeserver = Homeserver(self.services)
        self.router = homeserver.router
        self.sockets = SocketServer(homeserver.live, SocketSettings(), reactor)
        http = HttpServer(self.router, reactor, upgrades=self.sockets)
        self.listeners = Listeners(reactor, http, [Listener(port=0, bind_addresses=("127.0.0.1",))])
        self.services.start()
        self.listeners.start()

    @property
    def port(self) -> int:
        return int(self.listeners.urls[0].rpartition(":")[2])

    async def register(self, name: str) -> str:
        """The access token of a new account."""
        body = b'{"username":"%b","password":"correct horse","auth":{"type":"m.login.dummy"}}' % name.encode()
        call = Call("POST", "/_matrix/client/v3/register", {"content-type": "application/json"}, body, "127.0.0.1")
        answer = await self.router.handle(call)
        assert answer.status == 200, answer.body
        token: str = answer.body["access_token"]  # type: ignore[index]
        return token

    async def room(self, *names: str) -> str:
        """A room with these members."""
        services = self.services
        wish = Wish(f"@{names[0]}:test", "10", preset="public_chat")
        room_id = await Create(services.rooms, services.aliases).create(wish)
        for name in names[1:]:
            await services.membership.join(Requester(f"@{name}:test", "D"), room_id, {}, None)
        return room_id

    async def stop(self) -> None:
        self.sockets.stop(Code.RESTART, "test ends")
        await self.listeners.stop(1)
        await self.services.sync.stop()
        await self.services.accounts.stop()
        await self.services.log.close()


@pytest_twisted.async_yield_fixture
async def server(database: Database) -> AsyncIterator[Server]:
    running = Server(database)
    yield running
    await running.stop()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that happens on the sockets."""
    for _ in range(1000):
        if condition():
            return
        await deferLater(reactor, 0.01, lambda: None)  # type: ignore[arg-type]
    raise AssertionError("it did not happen")


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("websocket_client", EXAMPLES / "websocket_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest_twisted.ensureDeferred
async def test_the_python_client_talks_resumes_and_is_logged_out(server: Server) -> None:
    module = example()
    ann, bob = await server.register("ann"), await server.register("bob")
    room_id = await server.room("ann", "bob")
    heard: list[tuple[str, str]] = []
    ready: list[bool] = []
    ended: list[int] = []
    listener = module.Client(f"ws://127.0.0.1:{server.port}", bob, lambda b: heard.extend(module.messages(b, room_id)))
    listener.delay = 0.01
    listener.on_ready = lambda: ready.append(True)
    listener.on_end = lambda code, reason: ended.append(code)
    speaker = module.Client(f"ws://127.0.0.1:{server.port}", ann, lambda body: None)
    speaker.on_ready = lambda: ready.append(True)
    listener.connect()
    speaker.connect()
    await until(lambda: len(ready) == 2)
    answer = await speaker.send(room_id, "hello")
    assert answer["event_id"].startswith("$")
    await until(lambda: heard)
    for socket in list(server.sockets.sockets):
        if socket.user_id == "@bob:test":
            socket.close(Code.RESTART, "restart")
    await until(lambda: len(ready) == 3)
    await speaker.send(room_id, "are you back?")
    await until(lambda: len(heard) == 2)
    assert heard == [("@ann:test", "hello"), ("@ann:test", "are you back?")]
    with pytest.raises(module.Refused) as refusal:
        await speaker.send("!nowhere:test", "x")
    assert refusal.value.args[0] in (403, 404)
    await listener.request("POST", "/_matrix/client/v3/logout")
    await until(lambda: ended)
    assert ended == [Code.LOGGED_OUT]
    speaker.stop()
    await until(lambda: not server.sockets.sockets)


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
@pytest_twisted.ensureDeferred
async def test_the_browser_client_shows_what_is_said(server: Server, tmp_path: Path) -> None:
    ann = await server.register("ann")
    room_id = await server.room("ann")
    from homeserver.rooms.send import Send

    send = Send(server.services.rooms, server.services.aliases)
    content = {"msgtype": "m.text", "body": "seen in a browser"}
    await send.message(Requester("@ann:test", "D"), room_id, "m.room.message", content, None)
    fragment = f"server=http://127.0.0.1:{server.port}&token={ann}&room={room_id}"
    page = f"{(EXAMPLES / 'websocket.html').as_uri()}#{fragment}"
    wanted = {"connected as @ann:test", "@ann:test: seen in a browser"}
    assert await deferToThread(console_lines, page, tmp_path, wanted) == wanted


def console_lines(page: str, profile: Path, wanted: set[str]) -> set[str]:
    """Which of the wanted lines the page writes to the browser's console within half a minute."""
    command = [
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", page),
    ]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stop = threading.Timer(30, browser.kill)
    stop.start()
    found: set[str] = set()
    try:
        assert browser.stderr is not None
        for line in browser.stderr:
            found |= {text for text in wanted if text in line}
            if found == wanted:
                break
    finally:
        stop.cancel()
        browser.kill()
        browser.wait()
    return found
