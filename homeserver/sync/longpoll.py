"""The long poll: answer at once when there is something, else wait for it.

Specification: Client-Server API, "GET /_matrix/client/v3/sync" (``timeout``).
"""

from collections import OrderedDict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from federation.rules.errors import MatrixError
from homeserver.feed import Feed
from homeserver.sync.assemble import AnyBody
from homeserver.sync.quick import QuickReader, QuickReading
from homeserver.sync.reader import Reading, SyncReader
from homeserver.sync.scope import SyncRequest
from homeserver.sync.tokens import Since, sync_token
from homeserver.web.call import Call
from storage.log import inbox
from storage.log.append import Log

MAX_TIMEOUT_MS = 300_000
DELETE_AT_ONCE = 1_000
"""To-device messages that one acknowledgement deletes in one batch; the rest goes with the next."""
MAX_EMPTIED = 20_000
"""Devices whose inbox is known to be empty."""


AnyReading = Reading | QuickReading


class _Poll:
    """One request that waits. ``ended`` once its caller has gone, its session is over or the server stops."""

    __slots__ = (
        "answer", "deadline", "device_id", "ended", "longpoll", "reading", "request", "revoked", "token_id", "user_id",
    )  # fmt: skip

    def __init__(
        self, longpoll: "LongPoll", request: SyncRequest, deadline: float, token_id: object, reading: AnyReading
    ) -> None:
        self.longpoll = longpoll
        self.request = request
        self.user_id = request.user_id
        self.device_id = request.device_id
        self.deadline = deadline
        self.token_id = token_id
        self.reading = reading
        self.ended = False
        self.revoked = False
        self.answer: Deferred[AnyBody] = Deferred()

    def end(self) -> None:
        """Stop waiting and answer with what there is."""
        if not self.ended:
            self.ended = True
            self.longpoll.ended(self)

    def woken(self) -> None:
        """Something came: read what it is."""
        self.longpoll.woken(self)

    def expired(self) -> None:
        """The time is over."""
        self.longpoll.expired(self)


class LongPoll:
    """Answers ``/sync`` requests."""

    def __init__(self, log: Log, feed: Feed, reader: SyncReader, quick: QuickReader, clock: IReactorTime) -> None:
        self._log = log
        self._feed = feed
        self._reader = reader
        self._quick = quick
        self._clock = clock
        self._polls: dict[str, set[_Poll]] = {}
        self._emptied: OrderedDict[tuple[str, str], int] = OrderedDict()

    def answer(self, request: SyncRequest, timeout_ms: int, call: Call) -> "AnyBody | Deferred[AnyBody]":
        """The answer to a sync, at the latest after ``timeout_ms``; at once where it is there.

        Fails with MatrixError 401 ``M_UNKNOWN_TOKEN`` when the session ends meanwhile.
        """
        self._acknowledge(request)
        reading = self._quick.read(request)
        if reading is None:
            return Deferred.fromCoroutine(self._answer_read(request, timeout_ms, call))
        if reading.body.empty and _may_wait(request, timeout_ms):
            return self._wait(request, self._deadline(timeout_ms), call, reading)
        return reading.body

    async def _answer_read(self, request: SyncRequest, timeout_ms: int, call: Call) -> AnyBody:
        deadline = self._deadline(timeout_ms)
        reading = await self._reader.read(request)
        if reading.body.empty and _may_wait(request, timeout_ms):
            return await self._wait(request, deadline, call, reading)
        return reading.body

    def _deadline(self, timeout_ms: int) -> float:
        return self._clock.seconds() + min(timeout_ms, MAX_TIMEOUT_MS) / 1000

    def _wait(self, request: SyncRequest, deadline: float, call: Call, reading: AnyReading) -> "Deferred[AnyBody]":
        poll = _Poll(self, request, deadline, call.requester.token_id, reading)
        polls = self._polls.get(request.user_id)
        if polls is None:
            self._polls[request.user_id] = {poll}
        else:
            polls.add(poll)
        self._go_on(poll, reading)
        call.on_closed(poll.end)
        call.on_stopping(poll.end)
        return poll.answer

    # Plain calls rather than a coroutine: whoever types wakes everybody in the room, and half of the time went into
    # the chain of awaits.

    def _go_on(self, poll: _Poll, reading: AnyReading) -> None:
        """Wait on, unless there is an answer."""
        poll.reading = reading
        if not reading.body.empty or poll.ended:
            self._finish(poll)
        elif self._feed.position > reading.position:
            self.woken(poll)  # something came while this was read
        else:
            self._feed.add(poll)

    def woken(self, poll: _Poll) -> None:
        """Something came that may concern the poll."""
        if poll.ended:
            self._finish(poll)
            return
        # What was empty need not be looked at again: go on from there.
        position = poll.reading.position
        poll.request = request = poll.request._replace(since=Since(position, position))
        try:
            reading = self._quick.read(request)
        except Exception:
            self._fail(Failure(), poll)
            return
        if reading is not None:
            self._go_on(poll, reading)
        else:
            read = Deferred.fromCoroutine(self._reader.read(request))
            read.addCallback(lambda reading: self._go_on(poll, reading)).addErrback(self._fail, poll)

    def expired(self, poll: _Poll) -> None:
        """Nothing that was released meanwhile concerns the device: its next sync need not look at it."""
        poll.reading.body.next_batch = sync_token(self._log.epoch, self._log.position)
        self._finish(poll)

    def ended(self, poll: _Poll) -> None:
        """The poll has to be answered now. One that is being read is answered after that."""
        if self._feed.remove(poll):
            self._finish(poll)

    def _finish(self, poll: _Poll) -> None:
        self._forget(poll)
        if poll.revoked:
            poll.answer.errback(MatrixError(401, "M_UNKNOWN_TOKEN", "The session has ended"))
        else:
            poll.answer.callback(poll.reading.body)

    def _fail(self, failure: Failure, poll: _Poll) -> None:
        self._forget(poll)
        poll.answer.errback(failure)

    def _forget(self, poll: _Poll) -> None:
        polls = self._polls[poll.user_id]
        polls.discard(poll)
        if not polls:
            del self._polls[poll.user_id]

    def _acknowledge(self, request: SyncRequest) -> None:
        """Like `acknowledge`, but looks into an inbox only when a message may be in it."""
        since, device_id = request.since, request.device_id
        if since is None or device_id is None or not since.inbox:
            return
        device = (request.user_id, device_id)
        emptied = self._emptied.get(device)
        if emptied is not None and emptied >= self._feed.inboxes.get(device, 0):
            return
        # The feed does not know of messages from before the server started.
        if acknowledge(self._log, request) and since.inbox >= self._feed.start_position:
            self._emptied[device] = since.inbox
            if len(self._emptied) > MAX_EMPTIED:
                self._emptied.popitem(last=False)

    def revoked(self, user_id: str, device_id: str | None, token_id: Any) -> None:
        """A session ended: its long polls end now. Observer of the authenticator."""
        for poll in list(self._polls.get(user_id, ())):
            if token_id is None or poll.token_id == token_id:
                poll.revoked = True
                poll.end()

    def locked(self, user_id: str) -> None:
        """An account was locked: its long polls end, and the next request hears why. Observer of the authenticator."""
        for poll in list(self._polls.get(user_id, ())):
            poll.end()


def _may_wait(request: SyncRequest, timeout_ms: int) -> bool:
    return timeout_ms > 0 and request.since is not None and not request.full_state


def acknowledge(log: Log, request: SyncRequest) -> bool:
    """Delete the to-device messages that the client has seen, as its ``since`` says. False if some are left.

    The client need not wait for it: what is not deleted now is deleted with its next sync.
    """
    if request.since is None or request.device_id is None or not request.since.inbox:
        return True
    batch = log.begin()
    with log.snapshot() as snapshot:
        deleted = inbox.delete_messages(
            batch, snapshot, request.user_id, request.device_id, request.since.inbox, DELETE_AT_ONCE
        )
    if deleted:
        log.append(batch).addErrback(lambda _: None)
    return deleted < DELETE_AT_ONCE
