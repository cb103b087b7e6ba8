"""TwistedHttp and TlsPolicy over real TLS sockets: who is believed, where it connects, how much and how long it reads."""

import datetime
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed
from twisted.internet import ssl
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from federation.wire.addresses import AddressFilter
from federation.wire.connections import MAX_KEPT
from federation.wire.discovery import Target
from federation.wire.http import ConnectFailure, HttpAnswer, HttpFailure, HttpRequest, TooLarge, TwistedHttp
from federation.wire.tls import TlsPolicy
from tests.fakes.dns import FakeDns

reactor: Any = installed
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-One: 1\r\n\r\n{}"
NO_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])


class Peer(Factory):
    """A TLS server on loopback which says ``reply`` to each request; ``heard`` are the bytes that came."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.accepted = 0
        self.reply: Callable[[Any], None] = lambda transport: transport.write(HELLO)
        self.open: list[Any] = []

    def buildProtocol(self, addr: Any) -> Protocol:
        peer = self

        class Connection(Protocol):
            def connectionMade(self) -> None:
                peer.accepted += 1
                peer.open.append(self.transport)

            def dataReceived(self, data: bytes) -> None:
                peer.heard.append(data)
                peer.reply(self.transport)

            def connectionLost(self, reason: Any = None) -> None:
                peer.open.remove(self.transport)

        return Connection()


def pem_of(key: Any) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return pem


def certificate(subject_key: Any, issuer_key: Any, names: list[x509.GeneralName] | None) -> bytes:
    """PEM; without ``names`` a certificate authority."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(NO_NAME if names is None else x509.Name([]))
        .issuer_name(NO_NAME)
        .public_key(subject_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Place:
    """One authority, one server with a certificate for ``a.example`` and 127.0.0.1, and the DNS of it."""

    def __init__(self, folder: Path) -> None:
        authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(certificate(authority, authority, None))
        names = [x509.DNSName("a.example"), x509.IPAddress(ip_address("127.0.0.1"))]
        pair = ssl.PrivateCertificate.loadPEM(certificate(key, authority, names) + pem_of(key))
        self.names_sent: list[bytes | None] = []
        self.peer = Peer()
        options = pair.options()
        options.getContext().set_tlsext_servername_callback(
            lambda connection: self.names_sent.append(connection.get_servername())
        )
        self.port = reactor.listenSSL(0, self.peer, options, interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.dns = FakeDns({"a.example": ["127.0.0.1"], "b.example": ["127.0.0.1"]})
        self.clients: list[TwistedHttp] = []

    def http(self, tls: TlsPolicy | None = None, refused: tuple[str, ...] = ()) -> TwistedHttp:
        trusting = TlsPolicy(custom_ca_files=[self.ca])
        client = TwistedHttp(reactor, self.dns, tls or trusting, AddressFilter(refused))
        self.clients.append(client)
        return client

    async def get(
        self,
        http: TwistedHttp,
        host: str = "a.example",
        tls_name: str | None = None,
        *,
        body: bytes | None = None,
        seconds: float = 10.0,
        max_bytes: int = 1000,
    ) -> HttpAnswer:
        method = "GET" if body is None else "PUT"
        target = Target(host, self.number)
        request = HttpRequest(target, tls_name or host, "a.example", method, "/x?y", {"User-Agent": "t"}, body)
        return await http.request(request, seconds, max_bytes)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    import pytest_twisted

    made = Place(tmp_path)
    yield made
    for transport in list(made.peer.open):
        transport.abortConnection()
    for client in made.clients:
        pytest_twisted.blockon(client.close())
    pytest_twisted.blockon(made.port.stopListening())


@ensureDeferred
async def test_e07_a_certificate_of_a_trusted_authority_is_good(place: Place) -> None:
    http = place.http()
    answer = await place.get(http, body=b'{"a":1}')
    assert (answer.status, answer.body, answer.headers["x-one"]) == (200, b"{}", "1")
    request = b"".join(place.peer.heard)
    assert request.startswith(b"PUT /x?y HTTP/1.1\r\n") and request.endswith(b'\r\n\r\n{"a":1}')
    assert b"\r\nHost: a.example\r\n" in request and b"\r\nContent-Length: 7\r\n" in request
    await place.get(http)
    assert (place.peer.accepted, place.names_sent) == (1, [b"a.example"])


@ensureDeferred
async def test_e07_an_address_is_checked_against_the_certificate_and_sent_without_sni(place: Place) -> None:
    assert (await place.get(place.http(), "127.0.0.1")).status == 200
    assert place.names_sent == [None]


@pytest.mark.parametrize("name", ["b.example", "127.0.0.2", "x.a.example"])
@ensureDeferred
async def test_e07_a_certificate_for_another_name_is_refused(place: Place, name: str) -> None:
    with pytest.raises(HttpFailure, match="TLS: the certificate is made out to another name"):
        await place.get(place.http(), "a.example", name)
    assert place.peer.heard == []


@ensureDeferred
async def test_e07_an_unknown_authority_is_refused(place: Place) -> None:
    with pytest.raises(HttpFailure, match=r"TLS: certificate verify failed .*authority is not known"):
        await place.get(place.http(TlsPolicy()))
    assert place.peer.heard == []


@ensureDeferred
async def test_verification_off_for_all_or_for_some_names(place: Place) -> None:
    assert (await place.get(place.http(TlsPolicy(verify=False)), "b.example")).status == 200
    some = place.http(TlsPolicy(unverified_names=["*.example"]))
    assert (await place.get(some, "b.example")).status == 200
    other = place.http(TlsPolicy(unverified_names=["b.example"]))
    with pytest.raises(HttpFailure):
        await place.get(other, "a.example")


@ensureDeferred
async def test_a_connection_is_not_used_again_for_another_name(place: Place) -> None:
    http = place.http()
    await place.get(http, "a.example")
    with pytest.raises(HttpFailure):
        await place.get(http, "a.example", "b.example")
    assert len(place.peer.heard) == 1


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "::ffff:127.0.0.1"]])
@pytest.mark.parametrize("host", ["a.example", "127.0.0.1"])
@ensureDeferred
async def test_e04_refused_addresses_are_not_connected_to(place: Place, addresses: list[str], host: str) -> None:
    place.dns.hosts["a.example"] = addresses
    with pytest.raises(ConnectFailure, match="must not be connected to"):
        await place.get(place.http(refused=("127.0.0.0/8",)), host)
    assert place.peer.accepted == 0


@ensureDeferred
async def test_e04_the_permitted_one_of_several_addresses_is_taken(place: Place) -> None:
    place.dns.hosts["a.example"] = ["127.0.0.9", "127.0.0.1"]
    assert (await place.get(place.http(refused=("127.0.0.9/32",)))).status == 200


@ensureDeferred
async def test_e04_a_name_that_changes_its_address_is_filtered_again(place: Place) -> None:
    http = place.http(refused=("127.0.0.0/9",))
    place.dns.hosts["a.example"] = ["127.200.0.1"]  # permitted, nobody there
    with pytest.raises(ConnectFailure, match="cannot connect"):
        await place.get(http)
    place.dns.hosts["a.example"] = ["127.0.0.1"]
    with pytest.raises(ConnectFailure, match="must not be connected to"):
        await place.get(http)
    assert place.peer.accepted == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 1001,
    ],
    ids=["announced", "chunked", "until closed"],
)
@ensureDeferred
async def test_an_answer_that_is_too_large_is_not_read_on(place: Place, reply: bytes) -> None:
    place.peer.reply = lambda transport: transport.write(reply)
    with pytest.raises(TooLarge):
        await place.get(place.http(), max_bytes=1000)


@ensureDeferred
async def test_an_answer_of_just_the_limit_is_taken(place: Place) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    place.peer.reply = lambda transport: transport.write(reply)
    assert len((await place.get(place.http(), max_bytes=1000)).body) == 1000


@pytest.mark.parametrize(
    "reply", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"],
    ids=["silent", "stops in the header", "stops in the body"],
)  # fmt: skip
@ensureDeferred
async def test_e01_a_slow_answer_ends_at_the_limit(place: Place, reply: bytes) -> None:
    place.peer.reply = lambda transport: transport.write(reply)
    with pytest.raises(HttpFailure, match="no answer within"):
        await place.get(place.http(), seconds=0.2)


@pytest.mark.parametrize(
    "reply", [b"", b"no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"],
    ids=["nothing", "garbage", "half a body"],
)  # fmt: skip
@ensureDeferred
async def test_e01_an_early_end_or_garbage_is_a_failure(place: Place, reply: bytes) -> None:
    def close(transport: Any) -> None:
        transport.write(reply)
        transport.loseConnection()

    place.peer.reply = close
    with pytest.raises(HttpFailure):
        await place.get(place.http())


@pytest.mark.parametrize("body", [None, b"{}"])
@ensureDeferred
async def test_a_kept_connection_that_was_just_closed_is_replaced(place: Place, body: bytes | None) -> None:
    http = place.http()
    await place.get(http)

    def close_once(transport: Any) -> None:
        place.peer.reply = lambda transport: transport.write(HELLO)
        transport.abortConnection()

    place.peer.reply = close_once
    assert (await place.get(http, body=body)).status == 200
    assert place.peer.accepted == 2


@ensureDeferred
async def test_a_post_is_not_sent_twice(place: Place) -> None:
    http = place.http()
    await place.get(http)
    place.peer.reply = lambda transport: transport.abortConnection()
    request = HttpRequest(Target("a.example", place.number), "a.example", "a.example", "POST", "/x", {}, b"{}")
    with pytest.raises(HttpFailure):
        await http.request(request, 10.0, 1000)
    assert (place.peer.accepted, len(place.peer.heard)) == (1, 2)


@ensureDeferred
async def test_a_new_connection_that_is_closed_is_not_tried_again(place: Place) -> None:
    place.peer.reply = lambda transport: transport.abortConnection()
    with pytest.raises(HttpFailure):
        await place.get(place.http())
    assert place.peer.accepted == 1


@pytest.mark.parametrize("more", [HELLO, b"x"])
@ensureDeferred
async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(place: Place, more: bytes) -> None:
    http = place.http()
    place.peer.reply = lambda transport: transport.write(HELLO + more)
    await place.get(http)
    place.peer.reply = lambda transport: transport.write(HELLO.replace(b"{}", b"[]"))
    assert (await place.get(http)).body == b"[]"
    assert place.peer.accepted == 2


@ensureDeferred
async def test_idle_connections_are_closed_and_few_are_kept(place: Place) -> None:
    http = TwistedHttp(reactor, place.dns, TlsPolicy(custom_ca_files=[place.ca]), AddressFilter(()), idle_seconds=0.3)
    place.clients.append(http)
    await gatherResults([Deferred.fromCoroutine(place.get(http)) for _ in range(MAX_KEPT + 2)])
    assert place.peer.accepted == MAX_KEPT + 2
    await _until(lambda: len(place.peer.open) == MAX_KEPT)
    await _until(lambda: not place.peer.open)
    assert (await place.get(http)).status == 200


async def _until(fulfilled: Callable[[], bool]) -> None:
    for _ in range(500):
        if fulfilled():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it does not come to that")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/a b", {}), ("/a\r\nX: 1", {}), ("/ä", {}), ("", {}),
        ("/a", {"X": "1\r\nY: 2"}), ("/a", {"X": "1\n"}), ("/a", {"X": "€"}),
    ],
)  # fmt: skip
@ensureDeferred
async def test_no_part_of_a_request_ends_its_line(place: Place, path: str, fields: dict[str, str]) -> None:
    request = HttpRequest(Target("a.example", place.number), "a.example", "a.example", "GET", path, fields)
    with pytest.raises(HttpFailure, match="cannot be written"):
        await place.http().request(request, 10.0, 1000)
    assert place.peer.accepted == 0
