"""HTTPS requests that are bounded in every direction: address, time, bytes. Everything outgoing on the wire uses it.

The address filter is applied to the addresses that are then connected to, so that a name which resolves differently the
next time gains nothing. Redirects are not followed here. Connections are kept and used again; see
docs/decisions/0210-http-client.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory

from federation.wire.addresses import AddressFilter
from federation.wire.connections import Connection, Pool, Unheard
from federation.wire.discovery import Target
from federation.wire.dns import Dns, DnsFailure
from federation.wire.http_answer import HttpAnswer, HttpFailure, TooLarge
from federation.wire.tls import TlsPolicy, trouble

__all__ = ["ConnectFailure", "Http", "HttpAnswer", "HttpFailure", "HttpRequest", "TooLarge", "TwistedHttp"]

CONNECT_SECONDS = 10.0
MAX_CONNECT_ADDRESSES = 4

_PATH = re.compile(r"/[!-~]*")
_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\u0100-\U0010ffff]")


class ConnectFailure(HttpFailure):
    """Not even connected: another target may be tried, nothing was sent."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is asked of whom: connect to ``target``, expect ``tls_name`` in its certificate, send the rest."""

    target: Target
    tls_name: str
    host_header: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None = None


class Http(Protocol):
    """One request over TLS."""

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        """Connect, send, read at most ``max_bytes``, within ``seconds`` altogether. Raises HttpFailure."""


class TwistedHttp:
    """HTTP/1.1 over connections that are kept alive."""

    def __init__(
        self, reactor: Any, dns: Dns, tls: TlsPolicy, addresses: AddressFilter, idle_seconds: float = 120.0
    ) -> None:
        self._reactor = reactor
        self._dns = dns
        self._tls = tls
        self._addresses = addresses
        self._pool = Pool(reactor, idle_seconds)

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        """See ``Http``."""
        work = Deferred.fromCoroutine(self._exchange(request, max_bytes))
        try:
            return await work.addTimeout(seconds, self._reactor)
        except HttpFailure:
            raise
        except (TimeoutError, CancelledError):
            raise HttpFailure(f"no answer within {seconds:g} seconds") from None
        except Exception as problem:  # the many exceptions of connections and TLS
            raise HttpFailure(_reason(problem)) from problem

    def close(self) -> "Deferred[Any]":
        """Close the connections that are kept."""
        return self._pool.close()

    async def _exchange(self, request: HttpRequest, max_bytes: int) -> HttpAnswer:
        data = _bytes_of(request)
        # A connection is only used again for the name that its certificate was checked against.
        connection = self._pool.take((request.tls_name, request.target))
        if connection is not None:
            try:
                return await connection.exchange(data, max_bytes)
            except Unheard:
                # The other side had just closed it. Every method of the Server-Server API but POST names what it does,
                # so that doing it twice does it once.
                if request.method == "POST":
                    raise
        connection = await self._connect(request.tls_name, request.target)
        return await connection.exchange(data, max_bytes)

    async def _connect(self, tls_name: str, target: Target) -> Connection:
        """Resolve, filter, and connect to the first address that takes the connection."""
        host, port = target
        permitted = await permitted_addresses(self._dns, self._addresses, host)
        creator = self._tls.creator(tls_name)
        factory = Factory.forProtocol(lambda: Connection(self._pool, (tls_name, target)))
        factory.noisy = False
        problem: Exception | None = None
        for address in permitted[:MAX_CONNECT_ADDRESSES]:
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint = kind(self._reactor, address, port, timeout=CONNECT_SECONDS)
            try:
                return cast(Connection, await wrapClientTLS(creator, endpoint).connect(factory))
            except CancelledError:
                raise
            except Exception as failure:
                problem = failure
        raise ConnectFailure(f"cannot connect to {host} port {port}: {_reason(problem)}")


def _bytes_of(request: HttpRequest) -> bytes:
    """The request as it is sent. Raises HttpFailure when a part of it would end the line that it stands in."""
    fields = {"Host": request.host_header, **request.headers}
    if request.body is not None:
        fields["Content-Length"] = str(len(request.body))
    lines = [f"{request.method} {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    if not _PATH.fullmatch(request.path) or any(map(_BREAKS.search, lines)):
        raise HttpFailure("the request cannot be written as HTTP")
    return "\r\n".join(lines).encode("latin-1") + (request.body or b"")


async def permitted_addresses(dns: Dns, addresses: AddressFilter, host: str) -> list[str]:
    """The addresses of a host or IP literal that may be connected to. Raises ConnectFailure when there are none."""
    try:
        ip_address(host)
        found = [host]
    except ValueError:
        try:
            found = await dns.addresses(host)
        except DnsFailure as failure:
            raise ConnectFailure(str(failure)) from failure
    if not found:
        raise ConnectFailure(f"{host} has no address")
    permitted = [address for address in found if addresses.permits(address)]
    if not permitted:
        raise ConnectFailure(f"{host} has only addresses that must not be connected to ({', '.join(found)})")
    return permitted


def _reason(problem: object) -> str:
    if told := trouble(problem):
        return told
    text = str(problem).strip()
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
