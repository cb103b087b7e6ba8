"""HTTP/1.1 on loopback sockets, byte by byte, with a pretend clock for every deadline."""

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock, deferLater

from homeserver.web.call import Answer, Call
from homeserver.web.forwarded import TrustedProxies
from homeserver.web.http import ConnectionLimits, HttpFactory, HttpServer, Timeouts
from homeserver.web.limits import Limits
from homeserver.web.router import Auth, Route, Router
from tests.fakes.loopback import LoopbackServer, closed_after, settle

reactor: Any = real_reactor
BIG = 3_000_000


class Peer(Protocol):
    """The client's side: keeps what comes, and lets a test wait for it."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.gone = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self._look()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.gone = True
        self._look()

    def _look(self) -> None:
        for wanted, done in list(self._waiting):
            if wanted() or self.gone:
                self._waiting.remove((wanted, done))
                done.callback(None)

    async def until(self, wanted: Callable[[], bool]) -> None:
        if not wanted() and not self.gone:
            done: Deferred[None] = Deferred()
            self._waiting.append((wanted, done))
            await done.addTimeout(10, reactor)

    async def ended(self) -> bytes:
        await self.until(lambda: self.gone)
        return self.got

    async def answers(self, count: int) -> list[tuple[int, dict[str, str], bytes]]:
        await self.until(lambda: len(split(self.got)) >= count)
        return split(self.got)


def split(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Whole answers in a stream."""
    found = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode("ascii").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            break
        found.append((int(lines[0].split(" ")[1]), headers, rest[:length]))
        data = rest[length:]
    return found


class Place(LoopbackServer):
    """A server with its port, clock and a few routes."""

    def __init__(self, proxies: TrustedProxies | None = None, **rest: Any) -> None:
        self.clock = Clock()
        self.calls: list[Call] = []
        self.waiting: list[Deferred[Any]] = []
        routes = [
            Route("POST", "/echo", self.echo, Auth.NONE, body_limit=1000),
            Route("GET", "/echo", self.echo, Auth.NONE),
            Route("GET", "/wait/{name}", self.wait, Auth.NONE),
            Route("GET", "/big", lambda call: Answer(200, b"x" * BIG, "text/plain"), Auth.NONE),
            Route("GET", "/split", lambda call: Answer(200, headers={"A": "b\r\nC: d"}), Auth.NONE),
            Route("GET", "/odd", lambda call: Answer(200, {"a": object()}), Auth.NONE),
            Route("GET", "/empty", lambda call: Answer(204), Auth.NONE),
        ]
        router = Router(routes, None, Limits({}, lambda: 0.0))  # type: ignore[arg-type]
        self.server = HttpServer(router, self.clock, Timeouts(30, 90, 2), now_ms=lambda: 0, **rest)
        self.server.open()
        super().__init__(HttpFactory(self.server, proxies))

    def echo(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        return {"body": call.body.decode(), "address": call.address, "big": call.query("big", "") and "x" * 20000}

    async def wait(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        done: Deferred[None] = Deferred()
        self.waiting.append(done)
        call.on_stopping(lambda: done.callback(None))
        await done
        return call.params  # type: ignore[return-value]

    async def connect(self, data: bytes = b"") -> Peer:
        peer = await self.dial(Peer())
        peer.transport.write(data)
        return peer



@pytest.fixture
def place() -> Iterator[Callable[..., Place]]:
    yield from closed_after(Place)


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1")


def post(body: bytes, *lines: str) -> bytes:
    return "\r\n".join(("POST /echo HTTP/1.1", "Host: x", *lines, "", "")).encode("latin-1") + body


@ensureDeferred
async def test_a_plain_exchange(place: Any) -> None:
    here = place()
    peer = await here.connect(post(b"hi", "Content-Length: 2"))
    ((status, headers, body),) = await peer.answers(1)
    assert status == 200 and orjson.loads(body)["body"] == "hi"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["content-type"] == "application/json"
    assert headers["date"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    peer.transport.write(get("/nothing"))
    assert (await peer.answers(2))[1][0] == 404


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"),
        post(b"hi", "Content-Length: 2", "Content-Length: 2"),
        post(b"hi", "Content-Length: 2", "Content-Length: 3"),
        post(b"hi", "Content-Length: 2, 2"),
        post(b"hi", "Content-Length: +2"),
        post(b"hi", "Content-Length: 2_0"),
        post(b"hi", "Content-Length: -2"),
        post(b"hi", "Content-Length: " + "9" * 30),
        post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        post(b"0\r\n\r\n", "Transfer-Encoding: identity, chunked"),
        post(b"0\r\n\r\n", "Transfer-Encoding : chunked"),
        post(b"zz\r\n", "Transfer-Encoding: chunked"),
        post(b"-1\r\n", "Transfer-Encoding: chunked"),
        post(b"0x2\r\nhi\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"2\nhi\r\n0\r\n\r\n" + b" " * 300, "Transfer-Encoding: chunked"),
        post(b"2\r\nhiXX0\r\n\r\n", "Transfer-Encoding: chunked"),
        post(b"0\r\nbad trailer\r\n\r\n", "Transfer-Encoding: chunked"),
        get("/echo", "A: b", " folded"),
        get("/echo", "Host: y"),
        get("/echo", "A: b\x00c"),
        get("/echo", "A: b\nC: d"),
        get("/echo", "A b"),
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET  /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET echo HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /echo\r\nHost: x\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
@ensureDeferred
async def test_h01_ambiguous_framing(place: Any, request_bytes: bytes) -> None:
    here = place()
    peer = await here.connect(request_bytes + get("/echo"))
    await peer.ended()
    ((status, headers, body),) = split(peer.got)
    assert status in (400, 501) and headers["connection"] == "close"
    assert "errcode" in orjson.loads(body)
    assert here.calls == []


@ensureDeferred
async def test_h01_pipelined_answers_keep_their_order(place: Any) -> None:
    here = place()
    peer = await here.connect(get("/wait/one") + get("/wait/two") + get("/echo") + post(b"x" * 9, "Content-Length: 9"))
    await settle(lambda: here.waiting)
    await deferLater(reactor, 0.02, lambda: None)
    assert len(here.calls) == 1, "the second waits for the first"
    here.waiting[0].callback(None)
    await settle(lambda: len(here.waiting) == 2)
    here.waiting[1].callback(None)
    answers = [orjson.loads(body) for _, _, body in await peer.answers(4)]
    assert answers[:2] == [{"name": "one"}, {"name": "two"}] and answers[3]["body"] == "x" * 9


@ensureDeferred
async def test_h01_bytes_that_trickle(place: Any) -> None:
    here = place()
    peer = await here.connect()
    chunked = post(b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n", "Transfer-Encoding: chunked")
    for byte in post(b"hello", "Content-Length: 5") + b"\r\n" + chunked:
        peer.transport.write(bytes([byte]))
        await deferLater(reactor, 0, lambda: None)
    answers = await peer.answers(2)
    assert [orjson.loads(body)["body"] for _, _, body in answers] == ["hello", "abcde"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"", "Content-Length: 1001"),
        post(b"", "Content-Length: 999999999999"),
        post(b"3e9\r\n", "Transfer-Encoding: chunked"),
        post((b"64\r\n" + b"x" * 100 + b"\r\n") * 11, "Transfer-Encoding: chunked"),
        post(b"x" * 2000, "Content-Length: 2000", "Content-Type: multipart/form-data; boundary=x"),
    ],
)
@ensureDeferred
async def test_h02_oversize_bodies_are_refused_while_read(place: Any, request_bytes: bytes) -> None:
    here = place()
    peer = await here.connect(request_bytes)
    ((status, _, body),) = await peer.answers(1)
    assert (status, orjson.loads(body)["errcode"]) == (413, "M_TOO_LARGE")
    peer.transport.write(b"x" * 100_000)  # nobody keeps it
    await settle(lambda: all(not channel._buffer for channel in here.server.channels))
    here.clock.pump([1] * 6)
    await peer.ended()
    assert here.calls == []


@ensureDeferred
async def test_h02_a_body_of_just_the_limit(place: Any) -> None:
    here = place()
    peer = await here.connect(post(b"x" * 1000, "Content-Length: 1000"))
    assert (await peer.answers(1))[0][0] == 200


@ensureDeferred
async def test_h02_no_permission_to_continue_for_what_is_too_large(place: Any) -> None:
    here = place()
    large = await here.connect(post(b"", "Content-Length: 5000", "Expect: 100-continue"))
    assert (await large.answers(1))[0][0] == 413
    peer = await here.connect(post(b"", "Content-Length: 5", "Expect: 100-continue"))
    await peer.until(lambda: peer.got == b"HTTP/1.1 100 Continue\r\n\r\n")
    peer.transport.write(b"hello")
    assert orjson.loads((await peer.answers(2))[1][2])["body"] == "hello"


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET /" + b"x" * 20_000, get("/echo", "A: " + "x" * 20_000), get("/echo", *["A: b"] * 200)],
)
@ensureDeferred
async def test_h02_heads_are_bounded(place: Any, request_bytes: bytes) -> None:
    peer = await place().connect(request_bytes)
    assert (await peer.answers(1))[0][0] == 431


@pytest.mark.parametrize("part", [b"GET /ec", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\nhal"])
@ensureDeferred
async def test_h03_slow_requests_are_cut_and_others_served(place: Any, part: bytes) -> None:
    here = place()
    slow = await here.connect(part)
    await settle(lambda: len(here.server.channels) == 1)
    for _ in range(8):
        here.clock.advance(5)
        slow.transport.write(b"x")  # trickling does not help
        await deferLater(reactor, 0.01, lambda: None)
    await slow.ended()
    assert split(slow.got)[0][0] == 408
    assert (await (await here.connect(get("/echo"))).answers(1))[0][0] == 200


@ensureDeferred
async def test_h03_idle_connections_are_cut_and_waiting_calls_are_not(place: Any) -> None:
    here = place()
    idle = await here.connect(get("/echo"))
    silent = await here.connect()
    waiting = await here.connect(get("/wait/a"))
    await idle.answers(1)
    await settle(lambda: here.waiting and len(here.server.channels) == 3)
    here.clock.pump([10] * 10)
    await idle.ended()
    await silent.ended()
    assert not waiting.gone and silent.got == b""
    here.waiting[0].callback(None)
    assert (await waiting.answers(1))[0][0] == 200


@ensureDeferred
async def test_h03_connections_per_address_and_in_all(place: Any) -> None:
    here = place(limits=ConnectionLimits(total=50, per_address=2))
    first = await here.connect(get("/echo"))
    second = await here.connect(get("/echo"))
    await first.answers(1)
    await second.answers(1)
    third = await here.connect(get("/echo"))
    assert await third.ended() == b""
    first.transport.loseConnection()
    await settle(lambda: len(here.server.channels) == 1)
    assert (await (await here.connect(get("/echo"))).answers(1))[0][0] == 200
    crowd = place(limits=ConnectionLimits(total=1, per_address=5), proxies=TrustedProxies(["127.0.0.1"]))
    await (await crowd.connect(get("/echo"))).answers(1)
    assert await (await crowd.connect(get("/echo"))).ended() == b""


@ensureDeferred
async def test_h01_an_answer_sent_at_once_does_not_overtake_what_waits(place: Any) -> None:
    here = place()
    peer = await here.connect()
    await settle(lambda: here.server.channels)
    (channel,) = here.server.channels
    for rounds in (0, 1):  # written in this round of the reactor, or before and not taken by the socket yet
        peer.got = b""
        channel.transport.write(b"first")
        if rounds:
            channel.transport.dataBuffer, channel.transport._tempDataBuffer = b"first", []
            channel.transport._tempDataLen = 0
        channel._send(b"second")
        await settle(lambda: len(peer.got) == len(b"firstsecond"))
        assert peer.got == b"firstsecond"
    channel._send(b"third")
    assert not channel.transport._tempDataBuffer, "it went out at once"
    await settle(lambda: peer.got == b"firstsecondthird")


@ensureDeferred
async def test_h05_who_does_not_read_is_cut(place: Any) -> None:
    here = place()
    peer = await here.connect()
    peer.transport.pauseProducing()
    peer.transport.write(get("/big") * 50)
    await settle(lambda: any(channel._congested for channel in here.server.channels))
    assert len(here.server.channels) == 1
    (channel,) = here.server.channels
    await settle(lambda: not channel.transport.dataBuffer or channel._congested)
    assert len(channel.transport.dataBuffer) + channel.transport._tempDataLen < 3 * BIG, "one answer at a time"
    here.clock.pump([10] * 11)
    await settle(lambda: not here.server.channels)


@ensureDeferred
async def test_h05_who_reads_again_gets_everything(place: Any) -> None:
    here = place()
    peer = await here.connect()
    peer.transport.pauseProducing()
    peer.transport.write(get("/big") * 2)
    await settle(lambda: any(channel._congested for channel in here.server.channels))
    peer.transport.resumeProducing()
    assert [len(body) for _, _, body in await peer.answers(2)] == [BIG] * 2


@pytest.mark.parametrize(
    ("trusted", "forwarded", "address"),
    [
        (None, "203.0.113.9", "127.0.0.1"),
        (["10.0.0.0/8"], "203.0.113.9", "127.0.0.1"),
        (["127.0.0.0/8"], "203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8"], "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8", "10.0.0.0/8"], "198.51.100.1, 203.0.113.9, 10.1.2.3", "203.0.113.9"),
        (["127.0.0.0/8"], "2001:db8::1", "2001:db8::1"),
        (["127.0.0.0/8"], "::ffff:203.0.113.9", "203.0.113.9"),
        (["127.0.0.0/8"], "unknown", "127.0.0.1"),
        (["127.0.0.0/8"], "", "127.0.0.1"),
    ],
)
@ensureDeferred
async def test_b10_forwarded_addresses(place: Any, trusted: Any, forwarded: str, address: str) -> None:
    here = place(proxies=None if trusted is None else TrustedProxies(trusted))
    peer = await here.connect(get("/echo", f"X-Forwarded-For: {forwarded}"))
    assert orjson.loads((await peer.answers(1))[0][2])["address"] == address


@ensureDeferred
async def test_a_client_that_leaves_is_noticed(place: Any) -> None:
    here = place()
    peer = await here.connect(get("/wait/a"))
    await settle(lambda: here.calls)
    left: list[bool] = []
    here.calls[0].on_closed(lambda: left.append(True))
    peer.transport.abortConnection()
    await settle(lambda: left)
    here.waiting[0].callback(None)  # and the late answer goes nowhere
    assert here.calls[0].closed and not here.server.channels


@ensureDeferred
async def test_stopping_answers_what_waits_and_closes(place: Any) -> None:
    here = place()
    waiting = await here.connect(get("/wait/a"))
    idle = await here.connect(get("/echo"))
    await idle.answers(1)
    await settle(lambda: here.waiting)
    await here.server.stop()
    ((status, headers, _),) = split(await waiting.ended())
    assert status == 200 and headers["connection"] == "close"
    await idle.ended()
    assert here.clock.getDelayedCalls() == []


@ensureDeferred
async def test_stopping_does_not_wait_for_ever(place: Any) -> None:
    here = place()
    stuck = await here.connect(post(b"hal", "Content-Length: 9"))
    await settle(lambda: here.server.channels and next(iter(here.server.channels))._head)
    stopped = here.server.stop(5)
    here.clock.pump([1] * 5)
    await stopped
    await stuck.ended()


@ensureDeferred
async def test_gzip_for_large_answers_and_clients_that_take_it(place: Any) -> None:
    here = place(compress_from=10_000)
    peer = await here.connect(
        get("/echo?big=1", "Accept-Encoding: br, gzip;q=0.5")
        + get("/echo?big=1", "Accept-Encoding: gzip;q=0")
        + get("/echo", "Accept-Encoding: gzip")
    )
    packed, plain, small = await peer.answers(3)
    assert packed[1]["content-encoding"] == "gzip" and packed[1]["vary"] == "Accept-Encoding"
    assert gzip.decompress(packed[2]) == plain[2]
    assert "content-encoding" not in plain[1] and "content-encoding" not in small[1]


@ensureDeferred
async def test_answers_that_cannot_be_written_are_faults(place: Any) -> None:
    peer = await place().connect(get("/split") + get("/odd"))
    assert [status for status, _, _ in await peer.answers(2)] == [500, 500]


@ensureDeferred
async def test_head_and_no_content(place: Any) -> None:
    peer = await place().connect(b"HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n")
    await peer.until(lambda: peer.got.endswith(b"\r\n\r\n"))
    assert f"Content-Length: {BIG}\r\n".encode() in peer.got
    other = await peer_of(place, get("/empty") + get("/echo"))
    (empty, after) = await other.answers(2)
    assert empty[0] == 204 and "content-length" not in empty[1] and after[0] == 200


async def peer_of(place: Any, data: bytes) -> Peer:
    peer: Peer = await place().connect(data)
    return peer


@pytest.mark.parametrize(
    ("request_bytes", "connection"),
    [
        (b"GET /echo HTTP/1.0\r\n\r\n", "close"),
        (b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive"),
        (get("/echo", "Connection: close"), "close"),
        (b"GET http://x/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "close"),
    ],
)
@ensureDeferred
async def test_who_keeps_the_connection(place: Any, request_bytes: bytes, connection: str) -> None:
    peer = await place().connect(request_bytes)
    ((status, headers, _),) = await peer.answers(1)
    assert (status, headers["connection"]) == (200, connection)
    if connection == "close":
        await peer.ended()
