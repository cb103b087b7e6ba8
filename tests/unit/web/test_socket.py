"""WebSocket connections on loopback, frame by frame; Autobahn's own client once, as the independent other end."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import (
    PerMessageDeflateOffer,
    PerMessageDeflateResponse,
    PerMessageDeflateResponseAccept,
)
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater

from homeserver.web.http import ConnectionLimits, HttpFactory, HttpServer
from homeserver.web.limits import Limits
from homeserver.web.router import Router
from homeserver.web.socket import SharedFrame, Socket, SocketServer, SocketSettings
from tests.fakes.loopback import LoopbackServer, closed_after, settle

reactor: Any = real_reactor


class Handler:
    """Notes what it hears; echoes what begins with ``echo``."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.sockets: list[Socket] = []

    def connected(self, socket: Socket) -> None:
        self.sockets.append(socket)
        self.heard.append(("connected", socket.header("Authorization")))

    def message(self, socket: Socket, text: bytes) -> None:
        self.heard.append(("message", text))
        if text.startswith(b"echo"):
            socket.send(text)
        if text == b"fault":
            raise ValueError("of the handler")

    def drained(self, socket: Socket) -> None:
        self.heard.append(("drained", None))

    def closed(self, socket: Socket, code: int) -> None:
        self.heard.append(("closed", code))


class RawPeer(Protocol):
    """A client that sends any bytes."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.gone = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.gone = True

    def send(self, opcode: int, payload: bytes, first: int = 0x80) -> None:
        mask = os.urandom(4)
        if len(payload) < 126:
            head = struct.pack("!BB", first | opcode, 0x80 | len(payload))
        elif len(payload) < 65536:
            head = struct.pack("!BBH", first | opcode, 0x80 | 126, len(payload))
        else:
            head = struct.pack("!BBQ", first | opcode, 0x80 | 127, len(payload))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.transport.write(head + mask + masked)

    def frames(self) -> list[tuple[int, bytes]]:
        """First byte and payload of each whole frame after the handshake."""
        data = self.got.partition(b"\r\n\r\n")[2]
        found = []
        while len(data) >= 2:
            length, start = data[1], 2
            if length == 126:
                length, start = struct.unpack("!H", data[2:4])[0], 4
            elif length == 127:
                length, start = struct.unpack("!Q", data[2:10])[0], 10
            if len(data) < start + length:
                break
            found.append((data[0], data[start : start + length]))
            data = data[start + length :]
        return found

    def close_code(self) -> int:
        opcode, payload = self.frames()[-1]
        assert opcode == 0x88
        return int(struct.unpack("!H", payload[:2])[0])


class Place(LoopbackServer):
    def __init__(self, limits: ConnectionLimits | None = None, **settings: Any) -> None:
        self.handler = Handler()
        self.settings = SocketSettings(path="/stream", **settings)
        self.sockets = SocketServer(self.handler, self.settings, reactor)
        router = Router([], None, Limits({}, lambda: 0.0))  # type: ignore[arg-type]
        self.server = HttpServer(router, reactor, limits=limits or ConnectionLimits(), upgrades=self.sockets)
        super().__init__(HttpFactory(self.server))

    async def connect(self, *lines: str, path: str = "/stream", more: bytes = b"") -> RawPeer:
        peer = await self.dial(RawPeer())
        usual = ("Host: x", "Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        head = "\r\n".join((f"GET {path} HTTP/1.1", *usual, key, *lines, "", ""))
        peer.transport.write(head.encode("latin-1") + more)
        await settle(lambda: b"\r\n\r\n" in peer.got or peer.gone)
        return peer

    async def opened(self, *lines: str) -> tuple[RawPeer, Socket]:
        peer = await self.connect(*lines)
        assert peer.got.startswith(b"HTTP/1.1 101 "), peer.got
        await settle(lambda: self.handler.sockets)
        return peer, self.handler.sockets[-1]


@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    yield from closed_after(Place)


@ensureDeferred
async def test_messages_both_ways(place: Any) -> None:
    here = place()
    peer, socket = await here.opened("Sec-WebSocket-Protocol: m.json", "Authorization: Bearer t")
    assert b"\r\nsec-websocket-protocol: m.json\r\n" in peer.got.lower() + b"\r\n"
    assert socket.address == "127.0.0.1"
    peer.send(1, b"echo 1")
    socket.send_shared(SharedFrame("ü".encode()))
    await settle(lambda: len(peer.frames()) == 2)
    assert sorted(peer.frames()) == [(0x81, b"echo 1"), (0x81, "ü".encode())]
    assert here.handler.heard[0] == ("connected", "Bearer t")


@ensureDeferred
async def test_frames_sent_right_behind_the_handshake(place: Any) -> None:
    here = place()
    frame = struct.pack("!BB", 0x81, 0x84) + b"\0\0\0\0" + b"echo"
    peer = await here.connect(more=frame)
    await settle(lambda: peer.frames() == [(0x81, b"echo")])


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 200_000])
@ensureDeferred
async def test_frames_of_every_size(place: Any, length: int) -> None:
    here = place()
    peer, socket = await here.opened()
    socket.send(b"x" * length)
    await settle(lambda: peer.frames() == [(0x81, b"x" * length)])


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (("*",), "https://evil.example", b"101"),
        (("https://chat.example",), "https://evil.example", b"403"),
        (("https://chat.example",), "https://Chat.example", b"101"),
        (("https://chat.example",), "null", b"403"),
        (("https://chat.example",), None, b"101"),
        (("https://chat.example",), "https://chat.example.evil.example", b"403"),
    ],
)
@ensureDeferred
async def test_h04_origins(place: Any, allowed: tuple[str, ...], origin: str | None, status: bytes) -> None:
    here = place(allowed_origins=allowed)
    peer = await here.connect(*([f"Origin: {origin}"] if origin else []))
    assert peer.got[9:12] == status
    if status == b"403":
        await settle(lambda: peer.gone and not here.server._open)


@ensureDeferred
async def test_h04_other_subprotocols_and_paths(place: Any) -> None:
    here = place()
    assert (await here.connect("Sec-WebSocket-Protocol: chat")).got[9:12] == b"400"
    assert (await here.connect(path="/other")).got[9:12] == b"404"
    assert (await here.connect("Content-Length: 1", more=b"x")).got[9:12] == b"404"
    assert here.handler.heard == []


@ensureDeferred
async def test_h04_a_message_that_is_too_large(place: Any) -> None:
    here = place(max_message=1000)
    one_frame, _ = await here.opened()
    one_frame.send(1, b"x" * 1001)
    pieces, _ = await here.opened()
    for number in range(11):
        pieces.send(1 if number == 0 else 0, b"x" * 100, first=0)
    await settle(lambda: one_frame.gone and pieces.gone)
    assert one_frame.close_code() == pieces.close_code() == 1009
    assert not [heard for heard in here.handler.heard if heard[0] == "message"]


@ensureDeferred
async def test_h04_a_compression_bomb(place: Any) -> None:
    here = place(max_message=100_000)
    peer, _ = await here.opened("Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(b"\0" * 50_000_000) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 100_000
    peer.send(1, bomb[:-4], first=0xC0)
    await settle(lambda: peer.gone)
    assert peer.close_code() == 1009
    assert not [heard for heard in here.handler.heard if heard[0] == "message"]


@pytest.mark.parametrize(
    ("opcode", "payload", "first", "code"),
    [(2, b"binary", 0x80, 1003), (1, b"\xff", 0x80, 1007), (3, b"", 0x80, 1002), (1, b"x", 0xA0, 1002)],
)
@ensureDeferred
async def test_h04_what_is_no_text(place: Any, opcode: int, payload: bytes, first: int, code: int) -> None:
    here = place()
    peer, _ = await here.opened()
    peer.send(opcode, payload, first)
    await settle(peer.frames)
    assert peer.close_code() == code


@ensureDeferred
async def test_h04_pings_find_the_dead(place: Any) -> None:
    here = place(ping_interval=0.05, ping_timeout=0.1)
    dead, _ = await here.opened()
    await settle(lambda: dead.gone)
    assert dead.frames()[0][0] == 0x89
    await settle(lambda: ("closed", 1006) in here.handler.heard)
    assert here.server._open == 0


@ensureDeferred
async def test_h04_connections_are_counted(place: Any) -> None:
    here = place(limits=ConnectionLimits(total=10, per_address=2), per_user=1)
    first, one = await here.opened()
    _, two = await here.opened()
    assert one.claim("@a:x") and one.claim("@a:x") and not two.claim("@a:x") and two.claim("@b:x")
    assert (await here.connect()).gone
    first.transport.abortConnection()
    await settle(lambda: here.server._open == 1)
    _, three = await here.opened()
    assert three.claim("@a:x")


@ensureDeferred
async def test_h05_a_slow_reader_is_seen_and_catches_up(place: Any) -> None:
    here = place()
    peer, socket = await here.opened()
    peer.transport.pauseProducing()
    for _ in range(200):
        if not socket.congested:
            socket.send(b"x" * 60_000)
            await deferLater(reactor, 0, lambda: None)
    assert socket.congested and socket.buffered_bytes < 100_000
    assert ("drained", None) not in here.handler.heard
    peer.transport.resumeProducing()
    await settle(lambda: ("drained", None) in here.handler.heard)
    assert not socket.congested and socket.buffered_bytes == 0


@ensureDeferred
async def test_h05_a_backlog_is_bounded(place: Any) -> None:
    here = place(max_backlog=1_000_000)
    peer, socket = await here.opened()
    peer.transport.pauseProducing()
    for _ in range(1000):
        socket.send(b"x" * 60_000)
    assert not socket.open and socket.buffered_bytes < 1_100_000
    await settle(lambda: ("closed", 1006) in here.handler.heard)


@ensureDeferred
async def test_closing_says_why(place: Any) -> None:
    here = place()
    peer, socket = await here.opened()
    socket.close(4011, "logged out")
    socket.send(b"too late")
    await settle(lambda: peer.frames())
    assert peer.frames() == [(0x88, struct.pack("!H", 4011) + b"logged out")]
    peer.send(8, struct.pack("!H", 4011))
    await settle(lambda: peer.gone and here.server._open == 0)
    assert here.handler.heard[-1] == ("closed", 4011)


@ensureDeferred
async def test_closing_does_not_wait_for_the_peer(place: Any) -> None:
    here = place(close_timeout=0.4)
    peer, _ = await here.opened()
    congested, stuck = await here.opened()
    congested.transport.pauseProducing()
    while not stuck.congested:
        stuck.send(b"x" * 60_000)
        await deferLater(reactor, 0, lambda: None)
    await here.sockets.stop(4000, "restart")
    await settle(lambda: peer.gone)
    assert here.server._open == 0 and not here.sockets.sockets


@ensureDeferred
async def test_b07_a_fault_of_the_handler_closes_that_socket_alone(place: Any) -> None:
    here = place()
    peer, _ = await here.opened()
    other, _ = await here.opened()
    peer.send(1, b"fault")
    await settle(lambda: peer.frames())
    assert peer.close_code() == 1011
    other.send(1, b"echo")
    await settle(lambda: other.frames() == [(0x81, b"echo")])


class AutobahnClient(WebSocketClientProtocol):
    def onOpen(self) -> None:
        self.sendMessage(b"echo " + b"y" * 5000)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.got.append(payload)
        if len(self.factory.got) == 3:
            self.sendClose(1000)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        self.factory.done.callback((wasClean, code))


@pytest.mark.parametrize("bits", [0, 9])
@ensureDeferred
async def test_compression_with_another_implementation(place: Any, bits: int) -> None:
    here = place()
    port = here.port.getHost().port
    factory: Any = WebSocketClientFactory(f"ws://127.0.0.1:{port}/stream", protocols=["m.json"], reactor=reactor)
    factory.protocol = AutobahnClient
    factory.got, factory.done = [], Deferred()
    factory.setProtocolOptions(
        perMessageCompressionOffers=[PerMessageDeflateOffer(request_max_window_bits=bits)],
        perMessageCompressionAccept=lambda response: (
            PerMessageDeflateResponseAccept(response) if isinstance(response, PerMessageDeflateResponse) else None
        ),
    )
    reactor.connectTCP("127.0.0.1", port, factory)
    await settle(lambda: here.handler.sockets)
    frame = SharedFrame(b"z" * 5000 + "€".encode())
    here.handler.sockets[0].send_shared(frame)
    here.handler.sockets[0].send(b"small")
    clean, code = await factory.done
    assert clean and code == 1000
    assert sorted(factory.got) == sorted([b"echo " + b"y" * 5000, frame.payload, b"small"])
    assert len(frame.deflated) < 200 and frame.plain[4:] == frame.payload
