"""The WebSocket edge of sync: carries out what the protocol machine (``sync/stream``) decides.

Answers hellos and calls, keeps cursors, and brings each released change to the connections that it concerns: as
one frame that all share where their view of it is the same, else as a delta of their own (``sync/reader``).
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.ephemeral.presence import Presence
from homeserver.feed import Feed
from homeserver.rooms.memberships import Memberships
from homeserver.sync import assemble, tokens
from homeserver.sync.connection import Connection
from homeserver.sync.filter_store import FilterStore
from homeserver.sync.ignored import IgnoredUsers
from homeserver.sync.live_frames import LiveFrames
from homeserver.sync.longpoll import DELETE_AT_ONCE
from homeserver.sync.reader import SyncReader
from homeserver.sync.room_sections import UnreadSource
from homeserver.sync.scope import SyncRequest
from homeserver.sync.stream import Acknowledge, Action, Close, Code, Hello, Request, Send, State, Stream
from homeserver.sync.tokens import Since, sync_token
from homeserver.web.call import Answer, Call, Requester
from homeserver.web.socket import Socket
from storage.log import inbox
from storage.log import read as log_read
from storage.log import rooms as room_log
from storage.log.append import Entry, Kind, Log

SLOW_SECONDS = 60.0
"""How long a socket may stay full before it is closed; its client resumes from its cursor."""
LEAVE_SECONDS = 0.5
"""How long a connection whose session has ended waits for the answers to its running calls."""
UNREAD_SECONDS = 1.0
"""Unread counts of one connection are sent at most once in this time."""


class Authenticator(Protocol):
    """Knows access tokens (``homeserver.accounts.sessions.Authenticator``)."""

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester | Awaitable[Requester]:
        """Whose token it is. Raises MatrixError 401."""

    def expires_ts(self, token: str) -> int | None:
        """When a token that was just used expires (ms)."""


class Calls(Protocol):
    """Answers Client-Server calls (``homeserver.web.router.Router``)."""

    def body_limit(self, method: str, raw_path: str) -> int:
        """How many bytes of body the route takes."""

    async def handle(self, call: Call) -> Answer:
        """The answer to a call."""


class LiveSync:
    """All live WebSocket connections; the ``SocketHandler`` of ``homeserver.web.socket``."""

    def __init__(
        self,
        *,
        log: Log,
        feed: Feed,
        memberships: Memberships,
        ignored: IgnoredUsers,
        reader: SyncReader,
        filters: FilterStore,
        presence: Presence,
        unread: UnreadSource,
        frames: LiveFrames,
        authenticator: Authenticator,
        calls: Calls,
        clock: IReactorTime,
        now_ms: Callable[[], int],
        hello_timeout: float = 10.0,
    ) -> None:
        self._log = log
        self._feed = feed
        self._memberships = memberships
        self._ignored = ignored
        self._reader = reader
        self._filters = filters
        self._presence = presence
        self._unread = unread
        self._frames = frames
        self._authenticator = authenticator
        self._calls = calls
        self._clock = clock
        self._now_ms = now_ms
        self._hello_timeout = hello_timeout
        self._by_user: dict[str, list[Connection]] = {}
        self._report = Logger()
        feed.follow(self.follow)

    # -- what the sockets say ----------------------------------------------------------------------------------------

    def connected(self, socket: Socket) -> None:
        """The opening handshake is done: wait for the hello."""
        scheme, _, token = (socket.header("authorization") or "").partition(" ")
        connection = Connection(socket, Stream(token.strip() if scheme.lower() == "bearer" else None))
        socket.data = connection
        connection.hello_timer = self._clock.callLater(self._hello_timeout, self._hello_overdue, connection)

    def message(self, socket: Socket, text: bytes) -> None:
        """A frame arrived."""
        self._carry_out(socket.data, socket.data.stream.received(text))

    def drained(self, socket: Socket) -> None:
        """A socket has room again: send what was missed, as one delta."""
        connection: Connection = socket.data
        connection.delivery.drained()
        if connection.slow_timer is not None:
            if connection.slow_timer.active():
                connection.slow_timer.cancel()
            connection.slow_timer = None
        self._deliver(connection)

    def closed(self, socket: Socket, code: int) -> None:
        """A connection is gone."""
        connection: Connection = socket.data
        connection.stream.closed()
        connection.stop_timers()
        for call in list(connection.calls or ()):
            call.close()
        if connection.requester is not None:
            self._unregister(connection)

    def _unregister(self, connection: Connection) -> None:
        others = self._by_user.get(connection.user_id, [])
        if connection in others:
            others.remove(connection)
            self._presence.sync_ended(connection.user_id, connection.device_id, connection.presence)
            if not others:
                del self._by_user[connection.user_id]

    def revoked(self, user_id: str, device_id: str | None, token_id: Any) -> None:
        """A session ended: close its connections. Observer of the authenticator."""
        for connection in list(self._by_user.get(user_id, ())):
            requester = connection.requester
            if requester is not None and (token_id is None or requester.token_id == token_id):
                self._log_out(connection)

    def locked(self, user_id: str) -> None:
        """An account was locked: close its connections; a new hello hears why. Observer of the authenticator."""
        for connection in list(self._by_user.get(user_id, ())):
            self._carry_out(connection, connection.stream.close(Code.RESTART, "The account has been locked"))

    def _log_out(self, connection: Connection) -> None:
        """Close a connection whose session has ended: at once, or when the logout that it asked for is answered."""
        connection.leaving = True
        self._unregister(connection)
        if connection.calls:
            connection.stop_timers()
            connection.session_timer = self._clock.callLater(LEAVE_SECONDS, self._leave, connection)
        else:
            self._leave(connection)

    def _leave(self, connection: Connection) -> None:
        self._carry_out(connection, connection.stream.close(Code.LOGGED_OUT, "The session has ended"))

    @property
    def connections(self) -> int:
        """How many connections are live."""
        return sum(map(len, self._by_user.values()))

    # -- carrying out ------------------------------------------------------------------------------------------------

    def _carry_out(self, connection: Connection, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                connection.socket.send(action.frame)
            elif isinstance(action, Close):
                connection.socket.close(action.code, action.reason)
            elif isinstance(action, Acknowledge):
                self._acknowledge(connection, action)
            elif isinstance(action, Request):
                self._spawn(connection, self._request(connection, action))
            else:
                self._spawn(connection, self._hello(connection, action))

    def _spawn(self, connection: Connection, work: Any) -> None:
        def failed(failure: Any) -> None:
            self._report.failure("A WebSocket connection failed", failure)
            self._carry_out(connection, connection.stream.close(Code.INTERNAL, "Internal server error"))

        ensureDeferred(work).addErrback(failed)

    def _hello_overdue(self, connection: Connection) -> None:
        connection.hello_timer = None
        self._carry_out(connection, connection.stream.hello_overdue())

    async def _hello(self, connection: Connection, hello: Hello) -> None:
        try:
            requester = await self._admit(connection, hello)
            wanted = await self._filters.get(requester.user_id, hello.filter)
            since = self._resume(requester, hello.since)
        except MatrixError as error:
            self._carry_out(connection, connection.stream.refused(error))
            return
        if connection.stream.state != State.CHECKING:
            return
        connection.requester, connection.token = requester, hello.token
        connection.filter, connection.presence, connection.wants_unread = wanted, hello.set_presence, hello.unread
        if since is not None:
            connection.resumes, connection.inbox, connection.delivery.sent = True, since.inbox, since.position
        if connection.hello_timer is not None and connection.hello_timer.active():
            connection.hello_timer.cancel()
        connection.hello_timer = None
        # What comes meanwhile (the device's own presence, first of all) must not overtake what it has missed.
        connection.delivery.changed()
        self._register(connection)
        told = None if since is None else sync_token(self._log.epoch, since.position, since.inbox)
        self._carry_out(connection, connection.stream.accepted(requester.user_id, requester.device_id, told))
        self._deliver(connection)

    async def _admit(self, connection: Connection, hello: Hello) -> Requester:
        socket = connection.socket
        found = self._authenticator.authenticate(hello.token, socket.address, socket.header("user-agent") or "")
        requester = found if isinstance(found, Requester) else await found
        if requester.device_id is None:
            raise MatrixError(403, "M_FORBIDDEN", "Only devices can use the WebSocket")
        if not socket.claim(requester.user_id):
            raise MatrixError(429, "M_LIMIT_EXCEEDED", "Too many connections")
        return requester

    def _resume(self, requester: Requester, given: str | None) -> Since | None:
        """Where to continue: the given token, else the device's stored cursor, else None for the beginning."""
        if given is not None:
            return tokens.since(given, self._log.epoch, self._log.position)
        cursor = log_read.device_cursor(self._log, requester.user_id, requester.device_id or "")
        if cursor is None or cursor > self._log.position:
            return None
        # To-device messages that were acknowledged are gone from the inbox; all others are still to be sent.
        return Since(cursor, 0)

    def _register(self, connection: Connection) -> None:
        others = self._by_user.setdefault(connection.user_id, [])
        for other in list(others):
            if other.device_id == connection.device_id:
                self._carry_out(other, other.stream.close(Code.REPLACED, "The device has connected again"))
        others.append(connection)
        self._presence.sync_started(connection.user_id, connection.device_id, connection.presence)
        expires_ts = self._authenticator.expires_ts(connection.token)
        if expires_ts is not None:
            seconds = max(0.0, (expires_ts - self._now_ms()) / 1000)
            connection.session_timer = self._clock.callLater(seconds, self._expired, connection)

    def _expired(self, connection: Connection) -> None:
        self._carry_out(connection, connection.stream.close(Code.UNKNOWN_TOKEN, "The access token has expired"))

    # -- calls -------------------------------------------------------------------------------------------------------

    async def _request(self, connection: Connection, request: Request) -> None:
        """Any Client-Server call, through the same router, limits and checks as over HTTP."""
        path = request.path.partition("?")[0]
        if len(request.body) > self._calls.body_limit(request.method, path):
            error = MatrixError(413, "M_TOO_LARGE", "The body is too large")
            self._carry_out(connection, connection.stream.answered(request.id, error.status, error.body()))
            return
        headers = {"authorization": f"Bearer {connection.token}", "content-type": "application/json"}
        agent = connection.socket.header("user-agent")
        if agent is not None:
            headers["user-agent"] = agent
        call = Call(request.method, request.path, headers, request.body, connection.socket.address)
        connection.calls = connection.calls or set()
        connection.calls.add(call)
        try:
            answer = await self._calls.handle(call)
        finally:
            connection.calls.discard(call)
        status, body = answer.status, answer.body
        if not answer.content_type.startswith("application/json"):
            status, body = 406, MatrixError(406, "M_UNRECOGNIZED", "This answer is not JSON: use HTTP").body()
        elif isinstance(body, bytes):
            body = orjson.Fragment(body)
        self._carry_out(connection, connection.stream.answered(request.id, status, body))
        if connection.leaving and not connection.calls:
            self._leave(connection)

    # -- acknowledging -----------------------------------------------------------------------------------------------

    def _acknowledge(self, connection: Connection, action: Acknowledge) -> None:
        try:
            since = tokens.since(action.next_batch, self._log.epoch, self._log.position)
        except MatrixError as error:
            self._carry_out(connection, connection.stream.close(Code.BAD_FRAME, error.error))
            return
        if since is None or since.position > connection.delivery.sent:
            self._carry_out(connection, connection.stream.close(Code.BAD_FRAME, "That was never sent"))
            return
        if connection.acked is None or since > connection.acked:
            connection.acked = since
            if not connection.acking:
                self._spawn(connection, self._store_cursor(connection))

    async def _store_cursor(self, connection: Connection) -> None:
        """One commit at a time for each connection: acknowledgements that come meanwhile are merged into the next."""
        connection.acking = True
        stored: Since | None = None
        try:
            while connection.acked is not None and connection.acked != stored:
                stored = connection.acked
                user_id, device_id = connection.user_id, connection.device_id
                batch = self._log.begin()
                upto = min(stored.inbox, connection.inbox)
                with self._log.snapshot() as snapshot:
                    inbox.delete_messages(batch, snapshot, user_id, device_id, upto, DELETE_AT_ONCE)
                log_read.put_device_cursor(batch, user_id, device_id, stored.position)
                await self._log.append(batch)
        finally:
            connection.acking = False

    # -- bringing changes --------------------------------------------------------------------------------------------

    def follow(self, entries: Sequence[Entry]) -> None:
        """Bring released entries to the connections that they concern. Follower of the feed."""
        if not self._by_user:
            return
        dirty: dict[Connection, None] = {}
        moved = {
            (entry.room_id, entry.note.target)  # type: ignore[attr-defined]
            for entry in entries
            if entry.kind == Kind.EVENT and getattr(entry.note, "target", None) is not None
        }
        for entry in entries:
            users = self._feed.concerned(entry, self._by_user.keys())
            frame = self._frames.frame(entry) if users else None
            for user_id in users:
                own = user_id == entry.user_id
                shares = frame is not None and (entry.room_id, user_id) not in moved
                for connection in self._by_user.get(user_id, ()):
                    if shares and frame is not None and self._sees_the_same(connection, entry, own):
                        self._offer(connection, entry, frame)
                    elif not (entry.kind in _DEVICE_KINDS and entry.device_id != connection.device_id):
                        connection.delivery.changed()
                    if connection.delivery.owed:
                        dirty[connection] = None
        for connection in dirty:
            self._deliver(connection)

    def _sees_the_same(self, connection: Connection, entry: Entry, own: bool) -> bool:
        """Whether the shared frame is exactly what this connection would be sent."""
        if not connection.filter.plain or (own and entry.kind in _OWN_DIFFERS):
            return False
        return entry.user_id not in self._ignored.of(self._log, connection.user_id)

    def _offer(self, connection: Connection, entry: Entry, frame: Any) -> None:
        delivery = connection.delivery
        delivery.congested = connection.socket.congested
        if not connection.resumes:
            delivery.changed()
        elif delivery.offer_shared(entry.position):
            connection.socket.send_shared(frame)
            connection.inbox = entry.position
            if connection.wants_unread and entry.kind == Kind.EVENT:
                self._owe_unread(connection, entry.room_id)

    def _deliver(self, connection: Connection) -> None:
        """Build and send a delta, if one is owed and the socket has room."""
        if connection.stream.state != State.LIVE or connection.leaving:
            return
        delivery = connection.delivery
        delivery.congested = connection.socket.congested
        if delivery.start_delta():
            self._spawn(connection, self._send_delta(connection))
        elif delivery.congested and connection.slow_timer is None:
            connection.slow_timer = self._clock.callLater(SLOW_SECONDS, self._too_slow, connection)

    def _too_slow(self, connection: Connection) -> None:
        connection.slow_timer = None
        if connection.socket.congested:
            self._carry_out(connection, connection.stream.close(Code.TOO_SLOW, "Read faster, or less"))

    async def _send_delta(self, connection: Connection) -> None:
        since = connection.since
        request = SyncRequest(
            connection.user_id, connection.device_id, since, connection.filter, now_ms=self._now_ms()
        )
        reading = await self._reader.read(request)
        if connection.stream.state != State.LIVE or connection.leaving:
            return
        body = reading.body
        if since is None or not body.empty:
            if since is not None and not body.key_counts_changed:
                body.key_counts = body.fallback_types = None
            connection.socket.send(assemble.sync_frame(body.dump()))
        token = tokens.parse(body.next_batch)
        connection.resumes = True
        connection.inbox = token.inbox if isinstance(token, tokens.SyncToken) else reading.position
        connection.delivery.delta_sent(reading.position)
        if connection.inbox < reading.position:
            # More to-device messages are waiting than one answer takes.
            connection.delivery.changed()
        self._deliver(connection)

    # -- unread counts -----------------------------------------------------------------------------------------------

    def _owe_unread(self, connection: Connection, room_id: str) -> None:
        connection.unread_rooms = connection.unread_rooms or set()
        connection.unread_rooms.add(room_id)
        if connection.unread_timer is None:
            connection.unread_timer = self._clock.callLater(UNREAD_SECONDS, self._send_unread, connection)

    def _send_unread(self, connection: Connection) -> None:
        """The counts of rooms whose events went out in shared frames, merged over a second."""
        connection.unread_timer = None
        rooms, connection.unread_rooms = connection.unread_rooms or set(), None
        if connection.stream.state != State.LIVE or connection.socket.congested:
            return
        token = sync_token(self._log.epoch, connection.delivery.sent, connection.inbox)
        body = assemble.Body(token)
        with self._log.snapshot() as view:
            for room_id in rooms:
                meta = room_log.room_meta(view, room_id)
                if meta is not None and self._memberships.is_joined(connection.user_id, room_id):
                    unread = self._unread.counts(view, connection.user_id, room_id, meta.last_seq)
                    body.join[room_id] = assemble.unread_only(unread.notifications, unread.highlights, unread.threads)
        if body.join:
            connection.socket.send(assemble.sync_frame(body.dump()))


_OWN_DIFFERS = frozenset({Kind.EVENT, Kind.RECEIPT})
"""What its author is sent in another form: a transaction id, counts of their own."""
_DEVICE_KINDS = frozenset({Kind.TO_DEVICE, Kind.KEY_COUNTS})
