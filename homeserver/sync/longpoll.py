"""The long poll: answer at once when there is something, else wait for it.

Specification: Client-Server API, "GET /_matrix/client/v3/sync" (``timeout``).
"""

from collections import OrderedDict
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from homeserver.feed import Feed
from homeserver.sync.assemble import Body
from homeserver.sync.quick import QuickReader
from homeserver.sync.reader import SyncReader
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


class _Poll:
    """One request that waits. ``ended`` once its caller has gone, its session is over or the server stops."""

    __slots__ = ("device_id", "ended", "revoked", "token_id", "wait")

    def __init__(self, device_id: str | None, token_id: object) -> None:
        self.device_id = device_id
        self.token_id = token_id
        self.ended = False
        self.revoked = False
        self.wait: Deferred[bool] | None = None

    def end(self) -> None:
        """Stop waiting and answer with what there is."""
        self.ended = True
        if self.wait is not None:
            self.wait.cancel()


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
        self._report = Logger()

    async def answer(self, request: SyncRequest, timeout_ms: int, call: Call) -> Body:
        """The answer to a sync, at the latest after ``timeout_ms``.

        Raises MatrixError 401 ``M_UNKNOWN_TOKEN`` when the session ends meanwhile.
        """
        self._acknowledge(request)
        deadline = self._clock.seconds() + min(timeout_ms, MAX_TIMEOUT_MS) / 1000
        reading = self._quick.read(request) or await self._reader.read(request)
        may_wait = timeout_ms > 0 and request.since is not None and not request.full_state
        if not may_wait or not reading.body.empty:
            return reading.body
        poll = _Poll(request.device_id, call.requester.token_id)
        polls = self._polls.setdefault(request.user_id, set())
        polls.add(poll)
        call.on_closed(poll.end)
        call.on_stopping(poll.end)
        try:
            while reading.body.empty and not poll.ended:
                remaining = deadline - self._clock.seconds()
                if remaining <= 0:
                    break
                poll.wait = self._feed.wait(request.user_id, request.device_id, reading.position, remaining)
                try:
                    woken = await poll.wait
                except CancelledError:
                    break
                if not woken:
                    # Nothing that was released meanwhile concerns the device: its next sync need not look at it.
                    reading.body.next_batch = sync_token(self._log.epoch, self._log.position)
                    break
                if poll.ended:
                    break
                # What was empty need not be looked at again: go on from there.
                request = replace(request, since=Since(reading.position, reading.position))
                reading = self._quick.read(request) or await self._reader.read(request)
        finally:
            polls.discard(poll)
            if not polls and self._polls.get(request.user_id) is polls:
                del self._polls[request.user_id]
        if poll.revoked:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "The session has ended")
        return reading.body

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
