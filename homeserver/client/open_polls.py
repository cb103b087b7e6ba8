"""Requests that wait for events: ended when their caller goes away, their session ends or the server stops."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from federation.rules.errors import MatrixError
from homeserver.web.call import Call


class OpenPoll:
    """One waiting request."""

    __slots__ = ("ended", "revoked", "token_id", "waiting")

    def __init__(self, token_id: object) -> None:
        self.token_id = token_id
        self.ended = False
        self.revoked = False
        self.waiting: Deferred[Any] | None = None

    def end(self) -> None:
        """Wait no longer."""
        self.ended = True
        if self.waiting is not None:
            self.waiting.cancel()

    async def wait(self, waiting: "Deferred[Any]") -> bool:
        """Wait for it; False when the request is to be answered now. MatrixError 401 when its session has ended."""
        self.waiting = waiting
        if self.ended:
            waiting.cancel()
        try:
            await waiting
        except CancelledError:
            self.ended = True
        finally:
            self.waiting = None
        if self.revoked:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "The session has ended")
        return not self.ended


class OpenPolls:
    """All of them, by user."""

    def __init__(self) -> None:
        self._polls: dict[str, set[OpenPoll]] = {}

    def open(self, call: Call) -> OpenPoll:
        """A poll for this request; to be closed with ``close``."""
        poll = OpenPoll(call.requester.token_id)
        self._polls.setdefault(call.requester.user_id, set()).add(poll)
        call.on_closed(poll.end)
        call.on_stopping(poll.end)
        return poll

    def close(self, call: Call, poll: OpenPoll) -> None:
        """The request is answered."""
        polls = self._polls.get(call.requester.user_id, set())
        polls.discard(poll)
        if not polls:
            self._polls.pop(call.requester.user_id, None)

    def revoked(self, user_id: str, device_id: str | None, token_id: Any) -> None:
        """A session ended. Observer of the authenticator."""
        for poll in list(self._polls.get(user_id, ())):
            if token_id is None or poll.token_id == token_id:
                poll.revoked = True
                poll.end()

    def locked(self, user_id: str) -> None:
        """An account was locked: the next request hears why. Observer of the authenticator."""
        for poll in list(self._polls.get(user_id, ())):
            poll.end()
