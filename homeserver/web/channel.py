"""One HTTP/1.1 connection: requests in, answers out, in order.

Own reading and writing instead of `twisted.web`: see docs/decisions/0040-http-channel.md. A request is
answered before the next one on the same connection is read (pipelined ones wait in a bounded buffer), so
answers keep their order.
"""

from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Server as TcpConnection
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.web.call import Answer, Call
from homeserver.web.forwarded import TrustedProxies
from homeserver.web.http1 import MAX_HEAD, BadRequest, ChunkedBody, FixedBody, Head, HeadReader
from homeserver.web.router import fault_answer

if TYPE_CHECKING:
    from homeserver.web.http import HttpServer

SLOWEST_UPLOAD = 16 * 1024
"""Bytes per second; large bodies get time in proportion to their size."""

SEND_AT_ONCE = 64 * 1024
"""Bytes; longer answers are left to the reactor, which tells when their reader is slow."""

_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"


@implementer(interfaces.IPushProducer)
class HttpChannel(Protocol):
    """The server's side of one connection. `deadline` (server clock, seconds) is when it is cut, None for
    never.
    """

    transport: Any

    def __init__(
        self, server: "HttpServer", peer: str, proxies: TrustedProxies | None = None, counted: bool = True
    ) -> None:
        self.server = server
        self.peer = peer
        self.counted = counted
        self._proxies = proxies
        self.deadline: float | None = None
        self.call: Call | None = None
        self._heads = HeadReader()
        self._head: Head | None = None
        self._body: FixedBody | ChunkedBody | None = None
        self._buffer = b""
        self._congested = False
        self._reading = True
        self._finished = False

    # -- connection

    def connectionMade(self) -> None:
        if self.peer:  # a Unix socket has no such option
            self.transport.setTcpNoDelay(True)
        # As a producer the channel hears when the client does not read its answers.
        self.transport.registerProducer(self, True)
        self.deadline = self.server.now + self.server.timeouts.request
        self.server.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._finished = True
        self._buffer = b""
        self.server.forget(self)
        call, self.call = self.call, None
        if call is not None:
            call.close()

    def pauseProducing(self) -> None:
        """The client reads slower than we write: no further request is read until it caught up."""
        self._congested = True
        self.deadline = self.server.now + self.server.timeouts.idle

    def resumeProducing(self) -> None:
        """What was written has left."""
        self._congested = False
        if self.call is None and not self._finished:
            self.deadline = self.server.now + self.server.timeouts.idle
            self._advance()
        elif not self._finished:
            self.deadline = None

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""
        self._congested = True

    # -- requests

    def dataReceived(self, data: bytes) -> None:
        if self._finished:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self.call is None and not self._congested:
            self._advance()
        elif len(self._buffer) > MAX_HEAD and self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _advance(self) -> None:
        """Read and start requests as far as the buffer and the unanswered one allow."""
        try:
            while self._buffer and self.call is None and not self._congested and not self._finished:
                if self._head is None and not self._read_head():
                    break
                if not self._read_body():
                    break
        except BadRequest as bad:
            self._refuse(bad)
        if not self._reading and not self._finished and len(self._buffer) <= MAX_HEAD:
            self._reading = True
            self.transport.resumeProducing()

    def _read_head(self) -> bool:
        buffer = self._buffer
        # RFC 9112 section 2.2: an empty line before the request line is skipped.
        if buffer[:2] == b"\r\n":
            self._buffer = buffer = buffer[2:]
        end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(buffer) >= MAX_HEAD:
                raise BadRequest("Request head too large", 431)
            if self.deadline is None or self.deadline > self.server.now + self.server.timeouts.request:
                self.deadline = self.server.now + self.server.timeouts.request
            return False
        self._head = head = self._heads.read(buffer[:end])
        self._buffer = buffer[end + 4 :]
        if head.length == 0:
            return True
        limit = self.server.body_limit(head)
        if head.length is None:
            self._body = ChunkedBody(limit)
        elif head.length > limit:
            raise BadRequest("Request body too large", 413)
        elif head.length > len(self._buffer):
            self._body = FixedBody(head.length)
        if self._body is not None:
            size = limit if head.length is None else head.length
            self.deadline = self.server.now + self.server.timeouts.request + size / SLOWEST_UPLOAD
            if head.headers.get("expect", "").lower() == "100-continue" and head.minor_version:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bool:
        head = self._head
        assert head is not None
        if self._body is not None:
            rest = self._body.feed(self._buffer)
            if rest is None:
                self._buffer = b""
                return False
            body = self._body.whole()
            self._buffer = rest
            self._body = None
        else:
            length = head.length or 0
            body = self._buffer[:length]
            self._buffer = self._buffer[length:]
        self._start(head, body)
        return True

    def _start(self, head: Head, body: bytes) -> None:
        headers = head.headers
        address = self.peer
        if self._proxies is not None:
            address = self._proxies.client_address(address, headers.get("x-forwarded-for"))
        if "upgrade" in headers and self.server.upgrade(self, head, address, self._buffer):
            self._finished = True
            return
        self._head = None
        call = self.call = Call(head.method, head.target, headers, body, address)
        self.deadline = None
        keep_alive = head.keep_alive and not self.server.stopping
        connection = b"" if head.minor_version and keep_alive else _KEEP_ALIVE if keep_alive else _CLOSE
        outcome = self.server.start(call)
        if isinstance(outcome, Deferred):
            if self.server.stopping:
                call.stop()
            outcome.addCallbacks(self._answer_later, self._fault_later, (call, connection), {}, (call, connection))
        else:
            self._answer(outcome, call, connection)

    # -- answers

    def _answer_later(self, answer: Answer, call: Call, connection: bytes) -> None:
        self._answer(answer, call, connection)
        if not self._finished and not self._congested and self._buffer:
            self._advance()

    def _fault_later(self, failure: Failure, call: Call, connection: bytes) -> None:
        self._answer_later(fault_answer(call, failure.value), call, connection)

    def _answer(self, answer: Answer, call: Call, connection: bytes) -> None:
        if self._finished:
            return
        if self.server.stopping and connection is not _CLOSE:
            connection = _CLOSE
        writer = self.server.writer
        accepts = call.headers.get("accept-encoding", "")
        try:
            wire = writer.wire(answer, call.method, accepts, connection)
        except Exception as error:
            wire = writer.wire(fault_answer(call, error), call.method, accepts, connection)
        self.call = None
        self.deadline = self.server.now + self.server.timeouts.idle
        self._send(wire)
        if connection is _CLOSE:
            self.end()

    def _send(self, wire: bytes) -> None:
        """Write, at once where nothing waits before it: that spares the reactor a round for each answer."""
        transport = self.transport
        plain = type(transport) is TcpConnection and len(wire) <= SEND_AT_ONCE
        if plain and transport.connected and _nothing_waits(transport):
            sent = transport.writeSomeData(wire)
            # A lost connection is no number: the reactor finds out for itself.
            if type(sent) is int and sent:
                wire = wire[sent:]
                if not wire:
                    return
        transport.write(wire)

    def _refuse(self, bad: BadRequest) -> None:
        """Answer a request that cannot be read to its end, and close. What still arrives is dropped
        unread.
        """
        large = {"errcode": "M_TOO_LARGE", "error": bad.reason}
        body = large if bad.status in (413, 431) else {"errcode": "M_UNKNOWN", "error": bad.reason}
        self.transport.write(self.server.writer.wire(Answer(bad.status, body), "GET", "", _CLOSE))
        self.linger()

    def answer_and_close(self, answer: Answer) -> None:
        """Refuse an upgrade."""
        self.transport.write(self.server.writer.wire(answer, "GET", "", _CLOSE))
        self.end()

    # -- the end

    def end(self) -> None:
        """Close when what was written has left."""
        self._finished = True
        self._buffer = b""
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self.deadline = self.server.now + self.server.timeouts.request

    def linger(self) -> None:
        """Close, but drop for a while what the client is still sending (RFC 9112 section 9.6).

        Closing at once with unread bytes makes the system reset the connection, and the answer is lost.
        """
        self._finished = True
        self._buffer = b""
        self.transport.unregisterProducer()
        if isinstance(self.transport, ProtocolWrapper):
            self.transport.loseConnection()  # TLS says its own goodbye
        else:
            self.transport.loseWriteConnection()
        self.deadline = self.server.now + self.server.timeouts.linger

    def cut(self) -> None:
        """The deadline passed. A request that came half way is told so."""
        if not self._finished and not self._congested and (self._head is not None or self._buffer):
            answer = Answer(408, {"errcode": "M_UNKNOWN", "error": "The request took too long to arrive"})
            self.transport.write(self.server.writer.wire(answer, "GET", "", _CLOSE))
            self.end()
            self.deadline = self.server.now + self.server.timeouts.linger
        elif not self._finished and not self._congested:
            self.end()
            self.deadline = self.server.now + self.server.timeouts.linger
        else:
            self._finished = True
            self.transport.abortConnection()
            self.deadline = None

    def stop(self) -> None:
        """The server stops: an idle connection ends now, a waiting call answers with what it has."""
        if self.call is not None:
            self.call.stop()
        elif not self._finished and self._head is None and not self._buffer:
            self.end()


def _nothing_waits(transport: TcpConnection) -> bool:
    """Whether all that was written has left. Twisted has no public way to ask: what `write` was given since the last
    round of the reactor is in ``_tempDataBuffer``, what is older in ``dataBuffer``.
    """
    return not (transport.dataBuffer or transport._tempDataBuffer)
