"""WebSocket connections: the transport of the WebSocket sync, and the only file that knows Autobahn.

Every limit that Autobahn leaves open is set here. Text messages go up to a `SocketHandler`; frames go down,
the shared ones encoded once for all their readers. Protocol: RFC 6455, RFC 7692 (permessage-deflate).
"""

import struct
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from homeserver.web.call import Answer
from homeserver.web.http1 import Head

if TYPE_CHECKING:
    from homeserver.web.channel import HttpChannel

log = Logger()

SUBPROTOCOL = "m.json"
COMPRESS_FROM = 1024
"""Bytes from which a frame is compressed: below, the gain is smaller than a packet and not worth the
processor.
"""


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """Bounds for WebSocket connections; times in seconds, sizes in bytes.

    `allowed_origins`: which web pages may connect, ``*`` for all. That is safe because nothing is granted
    by the connection itself: browsers attach no ambient credentials that count here, the token is in the
    first frame. Programs that send no Origin are not pages and always may.
    """

    path: str = "/_matrix/client/unstable/io.folkmoot.websocket/stream"
    allowed_origins: tuple[str, ...] = ("*",)
    max_message: int = 1024 * 1024
    ping_interval: float = 30.0
    ping_timeout: float = 20.0
    open_timeout: float = 5.0
    close_timeout: float = 1.0
    max_backlog: int = 8 * 1024 * 1024
    """What may wait unsent for one reader before it is cut."""
    per_user: int = 100
    compression: bool = True


class SharedFrame:
    """A text message as the bytes of one server frame, made once for any number of sockets."""

    __slots__ = ("_deflated", "payload", "plain")

    def __init__(self, payload: bytes) -> None:
        """`payload` is UTF-8."""
        self.payload = payload
        self.plain = frame_header(0x81, len(payload)) + payload
        self._deflated: bytes | None = None

    @property
    def deflated(self) -> bytes:
        """The same, compressed by itself (no context from earlier messages); small ones stay as they are."""
        if self._deflated is None:
            if len(self.payload) < COMPRESS_FROM:
                self._deflated = self.plain
            else:
                packed = deflate(self.payload)
                self._deflated = frame_header(0xC1, len(packed)) + packed
        return self._deflated


def frame_header(first_byte: int, length: int) -> bytes:
    """The header of an unmasked frame (RFC 6455 section 5.2)."""
    if length < 126:
        return struct.pack("!BB", first_byte, length)
    if length < 65536:
        return struct.pack("!BBH", first_byte, 126, length)
    return struct.pack("!BBQ", first_byte, 127, length)


def deflate(payload: bytes) -> bytes:
    """RFC 7692 section 7.2.1, with an empty window before."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class SocketHandler(Interface):
    """What stands above the sockets. Exceptions close the socket with 1011."""

    def connected(self, socket: "Socket") -> None:
        """The opening handshake is done."""

    def message(self, socket: "Socket", text: bytes) -> None:
        """A text message, valid UTF-8, of at most `max_message` bytes."""

    def drained(self, socket: "Socket") -> None:
        """A socket that was congested has room again."""

    def closed(self, socket: "Socket", code: int) -> None:
        """The connection is gone. `code` is the peer's close code or 1006. Said once, for connected sockets
        only.
        """


@implementer(interfaces.IPushProducer)
class Socket:
    """One WebSocket connection, after its opening handshake.

    `congested` says that the reader is behind: build nothing more for it until `drained`. `data` is the
    handler's own.
    """

    __slots__ = (
        "_backlog",
        "_connection",
        "_deflate",
        "_headers",
        "_server",
        "_user_id",
        "address",
        "congested",
        "connected",
        "data",
        "open",
    )

    def __init__(
        self, server: "SocketServer", connection: "_Connection", address: str, headers: dict[str, str]
    ) -> None:
        self.address = address
        self.congested = False
        self.connected = False
        self.open = False
        self.data: Any = None
        self._server = server
        self._connection = connection
        self._headers = headers
        self._deflate = False
        self._backlog = 0
        self._user_id: str | None = None

    def header(self, name: str) -> str | None:
        """A header field of the opening handshake."""
        return self._headers.get(name.lower())

    @property
    def buffered_bytes(self) -> int:
        """What was sent since the reader fell behind and waits in memory; 0 while it keeps up."""
        return self._backlog

    def send(self, payload: bytes) -> None:
        """Send a text message (UTF-8) to this socket alone."""
        frame = SharedFrame(payload)
        self._write(frame.deflated if self._deflate else frame.plain)

    def send_shared(self, frame: SharedFrame) -> None:
        """Send a text message that other sockets get as well."""
        self._write(frame.deflated if self._deflate else frame.plain)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame (1000 or 3000-4999, reason up to 123 bytes) and drop the connection soon
        after.
        """
        if self.open:
            self.open = False
            self._connection.sendClose(int(code), reason)

    def claim(self, user_id: str) -> bool:
        """Count this socket against its user's cap; False when the cap is reached."""
        if self._user_id is None and self._server.claim(user_id):
            self._user_id = user_id
        return self._user_id == user_id

    @property
    def user_id(self) -> str | None:
        """Who claimed it."""
        return self._user_id

    def _write(self, frame: bytes) -> None:
        if not self.open:
            return
        if self.congested:
            self._backlog += len(frame)
            if self._backlog > self._server.settings.max_backlog:
                self.open = False
                self._connection.dropConnection(abort=True)
                return
        self._connection.transport.write(frame)

    # -- what the transport says

    def pauseProducing(self) -> None:
        """The system's buffers and the transport's are full."""
        self.congested = True

    def resumeProducing(self) -> None:
        """What was written has left."""
        self._backlog = 0
        if self.congested:
            self.congested = False
            if self.open:
                self._connection.guard(self._server.handler.drained, self)

    def stopProducing(self) -> None:
        """The transport is gone."""
        self.congested = True


class _Connection(WebSocketServerProtocol):
    """Autobahn's end of a connection: handshake, frames, pings and the closing handshake."""

    socket: Socket
    channel: "HttpChannel"
    transport: Any

    def onConnect(self, request: ConnectionRequest) -> str | None:
        if request.protocols and SUBPROTOCOL not in request.protocols:
            raise ConnectionDeny(ConnectionDeny.BAD_REQUEST, f"this server speaks {SUBPROTOCOL}")
        return SUBPROTOCOL if request.protocols else None

    def onOpen(self) -> None:
        socket = self.socket
        socket.connected = socket.open = True
        # Shared frames are compressed with a window of 15 bits; a client that asked for less gets them plain.
        compress = self._perMessageCompress
        socket._deflate = compress is not None and compress.server_max_window_bits == 15
        self.transport.registerProducer(socket, True)
        self.guard(socket._server.handler.connected, socket)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        socket = self.socket
        if not socket.open:
            return
        if isBinary:
            self._fail_connection(1003, "text frames only")
            return
        try:
            payload.decode("utf-8")  # much quicker than Autobahn's own incremental check, which is off
        except UnicodeDecodeError:
            self._fail_connection(1007, "invalid UTF-8")
            return
        self.guard(socket._server.handler.message, socket, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.socket._server.lost(self.socket, self.channel, code or 1005)

    def guard(self, function: Callable[..., None], *arguments: object) -> None:
        """Run a handler's function; a fault of ours closes the socket."""
        try:
            function(*arguments)
        except Exception as error:
            # Only the type and the place: the message may quote what the client sent.
            place = error.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
            log.error("WebSocket handler failed: {kind} at {where}", kind=type(error).__name__, where=where)
            self.socket.open = False
            self._fail_connection(1011, "internal error")

    def _closeConnection(self, abort: bool = False) -> None:
        # A registered producer would keep the connection open for ever.
        self.socket.open = False
        if self.transport is not None:
            self.transport.unregisterProducer()
        super()._closeConnection(abort)

    def _max_message_size_exceeded(self, msg_size: int, max_msg_size: int, reason: str) -> None:
        self.wasMaxMessagePayloadSizeExceeded = True
        self._fail_connection(1009, "message too large")


class SocketServer:
    """Takes over HTTP connections that ask for the WebSocket, and holds their limits."""

    def __init__(self, handler: SocketHandler, settings: SocketSettings, reactor: Any) -> None:
        self.handler = handler
        self.settings = settings
        self.sockets: set[Socket] = set()
        self._by_user: Counter[str] = Counter()
        self._all_gone: Deferred[None] | None = None
        self._factory = WebSocketServerFactory(server="folkmoot", protocols=[SUBPROTOCOL], reactor=reactor)
        self._factory.protocol = _Connection
        self._factory.setProtocolOptions(
            webStatus=False,
            utf8validateIncoming=False,
            requireMaskedClientFrames=True,
            maxFramePayloadSize=settings.max_message,
            maxMessagePayloadSize=settings.max_message,
            failByDrop=False,
            echoCloseCodeReason=False,
            openHandshakeTimeout=settings.open_timeout,
            closeHandshakeTimeout=settings.close_timeout,
            tcpNoDelay=True,
            autoPingInterval=settings.ping_interval,
            autoPingTimeout=settings.ping_timeout,
            autoPingSize=12,
            serveFlashSocketPolicy=False,
            allowedOrigins=["*"],  # decided in `wants` and `take_over`, before Autobahn sees the request
            allowNullOrigin=True,
            perMessageCompressionAccept=self._accept_compression,
        )

    def wants(self, head: Head) -> bool:
        """Whether a request asks for the WebSocket (RFC 6455 section 4.2.1)."""
        return (
            head.method == "GET"
            and head.length == 0
            and head.minor_version == 1
            and head.headers["upgrade"].lower() == "websocket"
            and head.target.partition("?")[0] == self.settings.path
        )

    def take_over(self, channel: "HttpChannel", head: Head, address: str, rest: bytes) -> None:
        """Make the connection a WebSocket one, or refuse with 403 for a page that may not connect."""
        if not self._origin_allowed(head.headers.get("origin")):
            body = {"errcode": "M_FORBIDDEN", "error": "Pages of this origin may not connect"}
            channel.server.channels.add(channel)
            channel.answer_and_close(Answer(403, body))
            return
        transport: Any = channel.transport
        transport.unregisterProducer()
        connection: Any = self._factory.buildProtocol(None)
        connection.channel = channel
        connection.socket = Socket(self, connection, address, head.headers)
        self.sockets.add(connection.socket)
        if isinstance(transport, ProtocolWrapper):
            transport.wrappedProtocol = connection
        else:
            transport.protocol = connection
        connection.makeConnection(transport)
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.headers.items())
        connection.dataReceived(f"GET {head.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + rest)

    def claim(self, user_id: str) -> bool:
        """Room for one more socket of this user?"""
        if self._by_user[user_id] >= self.settings.per_user:
            return False
        self._by_user[user_id] += 1
        return True

    def stop(self, code: int, reason: str) -> Deferred[None]:
        """Send everybody a close frame. Fires when the last is gone: `close_timeout` bounds the wait."""
        self._all_gone = done = Deferred[None]()
        for socket in list(self.sockets):
            socket.close(code, reason)
        self._report_if_gone()
        return done

    def _report_if_gone(self) -> None:
        if self._all_gone is not None and not self.sockets:
            done, self._all_gone = self._all_gone, None
            done.callback(None)

    def lost(self, socket: Socket, channel: "HttpChannel", code: int) -> None:
        """A connection is gone, opened or not."""
        socket.open = False
        self.sockets.discard(socket)
        channel.server.release(channel.peer, channel.counted)
        if socket.user_id is not None:
            self._by_user[socket.user_id] -= 1
            if not self._by_user[socket.user_id]:
                del self._by_user[socket.user_id]
        if socket.connected:
            try:
                self.handler.closed(socket, code)
            except Exception as error:
                log.error("WebSocket handler failed on close: {kind}", kind=type(error).__name__)
        self._report_if_gone()

    def _origin_allowed(self, origin: str | None) -> bool:
        allowed = self.settings.allowed_origins
        return origin is None or "*" in allowed or origin.lower() in {entry.lower() for entry in allowed}

    def _accept_compression(self, offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
        """Without context takeover where the client allows it: a context costs 300 KB for each connection."""
        if not self.settings.compression:
            return None
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(
                    offer,
                    request_no_context_takeover=offer.accept_no_context_takeover,
                    no_context_takeover=True,
                    max_message_size=self.settings.max_message,
                )
        return None
