"""Connections to other servers: one request after the other on each, kept for the next one while nobody asks."""

from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from federation.wire.http_answer import AnswerReader, HttpAnswer, HttpFailure

MAX_KEPT = 4
"""Idle connections to one place."""
CLOSE_SECONDS = 10.0
"""How long the other side may take to close its end as well."""


class Unheard(HttpFailure):
    """A kept connection turned out to be closed: nothing came back."""


class Pool:
    """The connections that wait for another request, by where they lead and for which name."""

    def __init__(self, reactor: Any, idle_seconds: float) -> None:
        self._reactor = reactor
        self._idle_seconds = idle_seconds
        self._kept: dict[Hashable, dict[Connection, Any]] = {}

    def take(self, key: Hashable) -> "Connection | None":
        """The connection that was used last."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        connection = next(reversed(kept))
        self.drop(connection)
        return connection

    def keep(self, connection: "Connection") -> None:
        """The connection has nothing to do."""
        kept = self._kept.setdefault(connection.key, {})
        if len(kept) < MAX_KEPT:
            kept[connection] = self._reactor.callLater(self._idle_seconds, connection.end)
        else:
            connection.end()

    def close_by_force(self, connection: "Connection") -> Any:
        """The timer after which a connection that is being closed is cut."""
        return self._reactor.callLater(CLOSE_SECONDS, connection.abort)

    def drop(self, connection: "Connection") -> None:
        """The connection is not waiting any more."""
        kept = self._kept.get(connection.key, {})
        timer = kept.pop(connection, None)
        if timer is None:
            return
        if timer.active():
            timer.cancel()
        if not kept:
            del self._kept[connection.key]

    def close(self) -> "Deferred[Any]":
        """Close all that are kept; fires when they are."""
        return DeferredList([connection.abort() for kept in list(self._kept.values()) for connection in list(kept)])


class Connection(Protocol):
    """One connection. It answers one request at a time and goes back into the pool by itself."""

    def __init__(self, pool: Pool, key: Hashable) -> None:
        self.key = key
        self._pool = pool
        self._reader: AnswerReader | None = None
        self._answer: Deferred[HttpAnswer] | None = None
        self._used = False
        self._heard = False
        self._gone: list[Deferred[None]] = []
        self._closing: Any = None

    def exchange(self, request: bytes, max_bytes: int) -> "Deferred[HttpAnswer]":
        """Send a request; its answer, with a body of at most ``max_bytes``. HttpFailure, or why the connection ended.

        Cancelling it ends the connection.
        """
        self._reader = AnswerReader(max_bytes)
        self._answer = Deferred(self._cancelled)
        self._heard = False
        answer = self._answer
        self._transport.write(request)
        return answer

    def dataReceived(self, data: bytes) -> None:
        """A piece of the answer has come."""
        reader = self._reader
        if reader is None:
            self.abort()  # nobody has asked
            return
        self._heard = True
        try:
            answer = reader.feed(data)
        except HttpFailure as failure:
            self._reader = None
            self.abort()
            self._settle(failure)
            return
        if answer is None:
            return
        self._reader = None
        if reader.kept:
            self._used = True
            self._pool.keep(self)
        else:
            self.end()
        self._settle(answer)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over, and with it perhaps the answer."""
        self._pool.drop(self)
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        gone, self._gone = self._gone, []
        if self._reader is not None:
            ended = reason.check(ConnectionDone) is not None
            answer = self._reader.ended() if ended else None
            if answer is not None:
                self._settle(answer)
            elif self._used and not self._heard:
                self._settle(Unheard("the connection was closed"))
            elif self._heard and ended:
                self._settle(HttpFailure("the connection closed within the answer"))
            else:
                self._settle(reason.value or HttpFailure("the connection was lost"))
        for one in gone:
            one.callback(None)

    def _cancelled(self, answer: Any) -> None:
        self.abort()

    def end(self) -> None:
        """Close once everything is written."""
        self._pool.drop(self)
        self._closing = self._pool.close_by_force(self)
        self._transport.loseConnection()

    def abort(self) -> "Deferred[None]":
        """Close at once; fires when it is closed."""
        self._pool.drop(self)
        gone: Deferred[None] = Deferred()
        self._gone.append(gone)
        self._transport.abortConnection()
        return gone

    @property
    def _transport(self) -> Any:
        return self.transport

    def _settle(self, outcome: "HttpAnswer | BaseException") -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.called:
            return
        if isinstance(outcome, HttpAnswer):
            answer.callback(outcome)
        else:
            answer.errback(outcome)
