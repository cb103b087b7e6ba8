"""Ports of every kind on loopback, and what systemd hears."""

import datetime
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as real_reactor
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from config.schema import Listener
from homeserver.web.certificate import Certificate
from homeserver.web.http import HttpServer
from homeserver.web.limits import Limits
from homeserver.web.listeners import Listeners
from homeserver.web.router import Auth, Route, Router
from homeserver.web.sd_notify import ServiceNotifier
from homeserver.web.socket import Socket, SocketServer, SocketSettings

reactor: Any = real_reactor
REQUEST = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def server() -> HttpServer:
    routes = [Route("GET", "/a", lambda call: {"address": call.address}, Auth.NONE)]
    router = Router(routes, None, Limits({}, lambda: 0.0))  # type: ignore[arg-type]
    return HttpServer(router, reactor)


def mode_of(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def ask(connection: socket.socket) -> bytes:
    connection.sendall(REQUEST)
    return connection.recv(4096)


def make_certificate(folder: Path, name: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    (folder / "key.pem").write_bytes(pem)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def tls_connection(port: int) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=5))


def common_name(connection: ssl.SSLSocket) -> str:
    certificate = x509.load_der_x509_certificate(connection.getpeercert(True) or b"")
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@ensureDeferred
async def test_several_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "folkmoot.sock")
    settings = [
        Listener(port=0, bind_addresses=("127.0.0.1",)),
        Listener(path=path, mode="0600", x_forwarded=True),
    ]
    listeners = Listeners(reactor, server(), settings)
    listeners.start()
    port = int(listeners.urls[0].rpartition(":")[2])
    assert listeners.urls == [f"http://127.0.0.1:{port}", f"unix:{path}"]
    assert mode_of(path) == 0o600

    def over_both() -> tuple[bytes, bytes]:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as tcp:
            first = ask(tcp)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.connect(path)
            unix.sendall(REQUEST.replace(b"Host: x", b"Host: x\r\nX-Forwarded-For: 203.0.113.9"))
            return first, unix.recv(4096)

    tcp_answer, unix_answer = await deferToThread(over_both)
    await listeners.stop()
    assert b'"127.0.0.1"' in tcp_answer and b'"203.0.113.9"' in unix_answer
    assert is_empty(tmp_path), "neither socket nor lock is left"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@ensureDeferred
async def test_ipv6() -> None:
    listeners = Listeners(reactor, server(), [Listener(port=0, bind_addresses=("127.0.0.1", "::1"))])
    listeners.start()
    try:
        if len(listeners.urls) < 2:
            pytest.skip("this machine has no IPv6")
        port = int(listeners.urls[1].rpartition(":")[2])
        assert listeners.urls[1] == f"http://[::1]:{port}"

        def over_ipv6() -> bytes:
            with socket.create_connection(("::1", port), timeout=5) as connection:
                return ask(connection)

        assert b'"::1"' in await deferToThread(over_ipv6)
    finally:
        await listeners.stop()


@ensureDeferred
async def test_tls_and_its_renewal(tmp_path: Path) -> None:
    certificate = Certificate(*make_certificate(tmp_path, "old.example"))
    settings = [Listener(port=0, bind_addresses=("127.0.0.1",), tls=True)]
    listeners = Listeners(reactor, server(), settings, certificate)
    listeners.start()
    port = int(listeners.urls[0].rpartition(":")[2])
    assert listeners.urls[0].startswith("https://")
    kept = await deferToThread(tls_connection, port)
    assert common_name(kept) == "old.example"
    assert b" 200 " in await deferToThread(ask, kept)

    make_certificate(tmp_path, "new.example")
    assert listeners.reload_certificate()
    (tmp_path / "cert.pem").write_text("broken")
    assert not listeners.reload_certificate()

    fresh = await deferToThread(tls_connection, port)
    assert common_name(fresh) == "new.example"
    assert b" 200 " in await deferToThread(ask, kept), "the open connection goes on"
    kept.close()
    fresh.close()
    await listeners.stop(0.5)


class Echo:
    """A socket handler that sends back what it gets."""

    def connected(self, socket: Socket) -> None:
        pass

    def message(self, socket: Socket, text: bytes) -> None:
        socket.send(text)

    def drained(self, socket: Socket) -> None:
        pass

    def closed(self, socket: Socket, code: int) -> None:
        pass


@ensureDeferred
async def test_websocket_and_refusals_over_tls(tmp_path: Path) -> None:
    sockets = SocketServer(Echo(), SocketSettings(path="/stream", close_timeout=0.4), reactor)
    router = Router([], None, Limits({}, lambda: 0.0))  # type: ignore[arg-type]
    here = HttpServer(router, reactor, upgrades=sockets)
    settings = [Listener(port=0, bind_addresses=("127.0.0.1",), tls=True)]
    listeners = Listeners(reactor, here, settings, Certificate(*make_certificate(tmp_path, "x.example")))
    listeners.start()
    port = int(listeners.urls[0].rpartition(":")[2])
    lines = ("GET /stream HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade")
    key = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", "")

    def talk() -> tuple[bytes, bytes]:
        with tls_connection(port) as connection:
            connection.sendall("\r\n".join((*lines, *key)).encode())
            handshake = connection.recv(4096)
            connection.sendall(b"\x81\x82\0\0\0\0hi")
            return handshake, connection.recv(4096)

    def break_framing() -> bytes:
        with tls_connection(port) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(4096), b""))

    handshake, echo = await deferToThread(talk)
    refusal = await deferToThread(break_framing)
    await sockets.stop(4000, "restart")
    await listeners.stop(0.5)
    assert handshake.startswith(b"HTTP/1.1 101 ") and echo == b"\x81\x02hi"
    assert refusal.startswith(b"HTTP/1.1 400 ") and refusal.endswith(b"}")


@ensureDeferred
async def test_all_or_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = [
            Listener(port=0, bind_addresses=("127.0.0.1",)),
            Listener(port=port, bind_addresses=("127.0.0.1",)),
        ]
        here = server()
        listeners = Listeners(reactor, here, settings)
        with pytest.raises(CannotListenError):
            listeners.start()
        assert listeners.urls == []
        await here.stop()


def test_tls_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tls_certificate_path"):
        Listeners(reactor, server(), [Listener(port=0, tls=True)])
    with pytest.raises(ValueError, match="no usable"):
        Certificate(str(tmp_path / "none"), str(tmp_path / "none"))


def test_what_systemd_hears(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notifier = ServiceNotifier({"NOTIFY_SOCKET": path})
        notifier.ready()
        notifier.reloading(17)
        notifier.stopping()
        assert [manager.recv(100) for _ in range(3)] == [
            b"READY=1",
            b"RELOADING=1\nMONOTONIC_USEC=17",
            b"STOPPING=1",
        ]
    notifier.ready()
    ServiceNotifier({}).ready()


def left_behind(path: str) -> None:
    """What a server that was killed leaves of a Unix listener."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()


@ensureDeferred
async def test_the_socket_of_a_killed_server_is_taken_over_whoever_has_its_process_number_now(tmp_path: Path) -> None:
    path = str(tmp_path / "folkmoot.sock")
    left_behind(path)
    (tmp_path / "folkmoot.sock.lock").symlink_to(str(os.getppid()))
    listeners = Listeners(reactor, server(), [Listener(path=path)])
    listeners.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    await listeners.stop()
    assert not os.path.exists(path)  # noqa: ASYNC240 (a look at one name)


@ensureDeferred
async def test_a_unix_socket_in_use_is_not_taken_away(tmp_path: Path) -> None:
    path = str(tmp_path / "folkmoot.sock")
    first = Listeners(reactor, server(), [Listener(path=path)])
    first.start()
    with pytest.raises(CannotListenError, match="in use"):
        Listeners(reactor, server(), [Listener(path=path)]).start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    await first.stop()


def test_a_file_in_the_place_of_a_unix_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "folkmoot.sock"
    path.write_text("precious")
    with pytest.raises(CannotListenError):
        Listeners(reactor, server(), [Listener(path=str(path))]).start()
    assert path.read_text() == "precious"
