"""Where the server answers: TCP with and without TLS, IPv4 and IPv6, Unix sockets; several at once."""

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from config.schema import Listener
from homeserver.web.certificate import Certificate
from homeserver.web.forwarded import TrustedProxies
from homeserver.web.http import HttpFactory, HttpServer

log = Logger()

BACKLOG = 1024
_NO_SUCH_ADDRESS = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Listeners:
    """The listening ports of one HTTP server."""

    def __init__(
        self,
        reactor: Any,
        server: HttpServer,
        settings: Sequence[Listener],
        certificate: Certificate | None = None,
    ) -> None:
        """`certificate` is needed when one of the listeners has `tls`; ValueError otherwise."""
        if certificate is None and any(listener.tls for listener in settings):
            raise ValueError("a listener with tls needs tls_certificate_path and tls_private_key_path")
        self._reactor = reactor
        self._server = server
        self._settings = settings
        self._certificate = certificate
        self._ports: list[Any] = []
        self.urls: list[str] = []
        """What answers, for people: ``http://127.0.0.1:8008``, ``unix:/run/folkmoot.sock``."""

    def start(self) -> None:
        """Listen. Raises `CannotListenError`, and then listens nowhere."""
        self._server.open()
        try:
            for listener in self._settings:
                self._listen(listener)
        except CannotListenError:
            for port in self._ports:
                port.stopListening()
            self._ports.clear()
            self.urls.clear()
            raise

    def stop(self, within: float = 5.0) -> Deferred[Any]:
        """Accept nothing more, then let the connections end, the last ones by force after `within`
        seconds.
        """
        ports, self._ports = self._ports, []
        closed = [maybeDeferred(port.stopListening) for port in ports]
        return gatherResults([*closed, self._server.stop(within)])

    def reload_certificate(self) -> bool:
        """Read the TLS files again for new connections; open ones go on. False when the files are
        unusable.
        """
        return self._certificate is None or self._certificate.reload()

    def _listen(self, listener: Listener) -> None:
        proxies = TrustedProxies(listener.trusted_proxies) if listener.x_forwarded else None
        factory: Any = HttpFactory(self._server, proxies)
        if listener.path is not None:
            _remove_leftover(listener.path)
            port = self._reactor.listenUNIX(listener.path, factory, BACKLOG, int(listener.mode, 8))
            self._add(port, f"unix:{listener.path}")
            return
        if listener.tls:
            factory = TLSMemoryBIOFactory(cast(Any, self._certificate), False, factory)
            factory.noisy = False
        scheme = "https" if listener.tls else "http"
        addresses = listener.bind_addresses
        skipped: list[CannotListenError] = []
        for address in addresses:
            try:
                port = self._reactor.listenTCP(listener.port, factory, BACKLOG, address)
            except CannotListenError as error:
                if not _may_skip(error, address, addresses):
                    raise
                skipped.append(error)
                continue
            host = f"[{address}]" if ":" in address else address or "0.0.0.0"
            self._add(port, f"{scheme}://{host}:{port.getHost().port}")
        if len(skipped) == len(addresses) and skipped:
            raise skipped[0]
        for refused in skipped:
            log.warn("not listening on {address}: {why}", address=refused.interface, why=refused.socketError)

    def _add(self, port: Any, url: str) -> None:
        self._ports.append(port)
        self.urls.append(url)


def _remove_leftover(path: str) -> None:
    """Remove the socket of a server that was killed. Raises CannotListenError when somebody answers at it.

    Asking is the only sure way: process numbers are given out again, and in a container they are always the same.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
            return
        except BlockingIOError:  # more callers than it can take
            pass
        except OSError as error:
            raise CannotListenError(None, path, error) from error
    raise CannotListenError(None, path, OSError(errno.EADDRINUSE, "it is in use"))


def _may_skip(error: CannotListenError, address: str, addresses: Sequence[str]) -> bool:
    """A machine without IPv6 has no ``::1``; and where ``::`` takes IPv4 as well, ``0.0.0.0`` is already
    taken.
    """
    number = getattr(error.socketError, "errno", None)
    if ":" in address and number in _NO_SUCH_ADDRESS:
        return True
    return address == "0.0.0.0" and "::" in addresses and number == errno.EADDRINUSE
