"""HTTPS requests that are bounded in every direction: address, time, bytes. Everything outgoing on the wire uses it.

The address filter is applied to the addresses that are then connected to, so that a name which resolves differently the
next time gains nothing. Redirects are not followed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    PartialDownloadError,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from federation.wire.addresses import AddressFilter
from federation.wire.discovery import Target
from federation.wire.dns import Dns, DnsFailure
from federation.wire.tls import TlsPolicy, trouble

CONNECT_SECONDS = 10.0
MAX_CONNECT_ADDRESSES = 4


class HttpFailure(Exception):
    """No usable answer; the message says why."""


class ConnectFailure(HttpFailure):
    """Not even connected: another target may be tried, nothing was sent."""


class TooLarge(HttpFailure):
    """More bytes than allowed."""


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


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, header fields (names in lower case, the last of each name), body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http(Protocol):
    """One request over TLS."""

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        """Connect, send, read at most ``max_bytes``, within ``seconds`` altogether. Raises HttpFailure."""


class TwistedHttp:
    """HTTP/1.1 over a pool of connections that are kept alive."""

    def __init__(
        self, reactor: Any, dns: Dns, tls: TlsPolicy, addresses: AddressFilter, idle_seconds: float = 120.0
    ) -> None:
        self._reactor = reactor
        self._dns = dns
        self._tls = tls
        self._addresses = addresses
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 4
        self._pool.cachedConnectionTimeout = int(idle_seconds)
        self._pool.retryAutomatically = False  # the second attempt below also covers PUT

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        """See ``Http``."""
        endpoint = _Filtered(self._reactor, self._dns, self._addresses, self._tls, request)
        agent = Agent.usingEndpointFactory(self._reactor, _Fixed(endpoint), self._pool)
        # The pool keeps connections by this address: a connection is only used again for the name that its
        # certificate was checked against.
        name = f"[{request.tls_name}]" if ":" in request.tls_name else request.tls_name
        uri = f"https://{name}:{request.target.port}{request.path}".encode("ascii")
        fields = Headers({"Host": [request.host_header], **{key: [value] for key, value in request.headers.items()}})
        method = request.method.encode("ascii")
        work = Deferred.fromCoroutine(_exchange(agent, method, uri, fields, request.body, max_bytes))
        try:
            return await work.addTimeout(seconds, self._reactor)
        except HttpFailure:
            raise
        except (TimeoutError, CancelledError):
            raise HttpFailure(f"no answer within {seconds:g} seconds") from None
        except Exception as problem:  # the many exceptions of connections, TLS and HTTP parsing
            if _was_cancelled(problem):
                raise HttpFailure(f"no answer within {seconds:g} seconds") from None
            raise HttpFailure(_reason(problem)) from problem

    def close(self) -> "Deferred[None]":
        """Close the connections that are kept."""
        return self._pool.closeCachedConnections()


async def _exchange(
    agent: Agent, method: bytes, uri: bytes, fields: Headers, body: bytes | None, max_bytes: int
) -> HttpAnswer:
    producer = None if body is None else _Body(body)
    try:
        response = await agent.request(method, uri, fields, producer)
    except ResponseNeverReceived as problem:
        # A kept connection that the other side had just closed. Every method of the Server-Server API but POST
        # names what it does, so that doing it twice does it once.
        if method == b"POST" or not _nothing_received(problem):
            raise
        response = await agent.request(method, uri, fields, None if body is None else _Body(body))
    length = response.length
    if isinstance(length, int) and length > max_bytes:
        response.deliverBody(_Discard())
        raise TooLarge(f"an answer of {length} bytes, at most {max_bytes} are taken")
    content = await _read(response, max_bytes)
    headers = {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }
    return HttpAnswer(response.code, headers, content)


def _nothing_received(problem: ResponseNeverReceived) -> bool:
    return not any(reason.check(PartialDownloadError, CancelledError, TimeoutError) for reason in problem.reasons)


def _was_cancelled(problem: Exception) -> bool:
    """How the agent says that it was cancelled before the header of the answer was complete."""
    return isinstance(problem, ResponseFailed) and any(one.check(CancelledError) for one in problem.reasons)


def _read(response: Any, max_bytes: int) -> "Deferred[bytes]":
    collector = _Collector(max_bytes)
    response.deliverBody(collector)
    return collector.done


class _Collector(TwistedProtocol):
    """Gathers a body up to a limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._chunks: list[bytes] = []
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:
        """A piece has come."""
        self._left -= len(data)
        if self._left >= 0:
            self._chunks.append(data)
            return
        self._chunks.clear()
        self._abort()
        if not self.done.called:
            self.done.errback(TooLarge("the answer is larger than allowed"))

    def connectionLost(self, reason: Failure = Failure(ResponseDone())) -> None:  # noqa: B008
        """The body has ended, or the connection has."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(HttpFailure("the connection closed within the answer"))

    def _abort(self) -> None:
        if self.transport is not None:
            transport: Any = self.transport
            (getattr(transport, "abortConnection", None) or transport.loseConnection)()


class _Discard(TwistedProtocol):
    """Closes instead of reading."""

    def connectionMade(self) -> None:
        """Called at once."""
        transport: Any = self.transport
        (getattr(transport, "abortConnection", None) or transport.loseConnection)()


@implementer(IBodyProducer)
class _Body:
    """A body in memory; knows its length, so that it is never sent in chunks."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: Any) -> "Deferred[None]":
        """Write everything."""
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Too late."""

    def resumeProducing(self) -> None:
        """Nothing is left."""

    def stopProducing(self) -> None:
        """Nothing goes on."""


@implementer(IAgentEndpointFactory)
class _Fixed:
    """Gives the agent the one endpoint that was made for the request."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: Any) -> Any:
        """Whatever the address says."""
        return self._endpoint


@implementer(IStreamClientEndpoint)
class _Filtered:
    """Resolves, filters, and connects to the first address that takes the connection."""

    def __init__(
        self, reactor: Any, dns: Dns, addresses: AddressFilter, tls: TlsPolicy, request: HttpRequest
    ) -> None:
        self._reactor = reactor
        self._dns = dns
        self._addresses = addresses
        self._tls = tls
        self._request = request

    def connect(self, factory: Any) -> "Deferred[Any]":
        """Asked by the pool when it has no connection."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: Any) -> Any:
        host, port = self._request.target
        permitted = await permitted_addresses(self._dns, self._addresses, host)
        creator = self._tls.creator(self._request.tls_name)
        problem: Exception | None = None
        for address in permitted[:MAX_CONNECT_ADDRESSES]:
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint = kind(self._reactor, address, port, timeout=CONNECT_SECONDS)
            try:
                return await wrapClientTLS(creator, endpoint).connect(factory)
            except CancelledError:
                raise
            except Exception as failure:
                problem = failure
        raise ConnectFailure(f"cannot connect to {host} port {port}: {_reason(problem)}")


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
    reasons = getattr(problem, "reasons", None)
    if reasons:
        return ", ".join(_reason(getattr(reason, "value", reason)) for reason in reasons)
    if told := trouble(problem):
        return told
    text = str(problem).strip()
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
