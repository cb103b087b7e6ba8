"""Calls that write, while the disk may hang: each is answered in bounded time, and none is told that it failed.

A commit that does not end may still succeed. So what a call has submitted is left to go on, and its caller hears that
the outcome is not known: a repetition with the same transaction id finds the first one's result, or does it.
"""

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.web.call import Answer

READING = frozenset(("GET", "HEAD"))
"""Methods that do not wait for a commit."""


def _answer(error: str) -> Answer:
    return Answer(503, {"errcode": "M_UNKNOWN", "error": error}, headers={"Retry-After": "10"})


class Writes:
    """The writing calls of a router that have no answer yet."""

    def __init__(self) -> None:
        self._stalled = False
        self._waiting: dict[Deferred[Answer], None] = {}

    def refusal(self) -> Answer | None:
        """What a new call is answered instead of being begun, None when it may."""
        return _answer("The server cannot save anything at the moment") if self._stalled else None

    def bounded(self, work: "Deferred[Answer]") -> "Deferred[Answer]":
        """The outcome of ``work``, or 503 as soon as the log stalls; ``work`` itself goes on."""
        answer: Deferred[Answer] = Deferred()
        self._waiting[answer] = None
        work.addBoth(self._ended, answer)
        return answer

    def _ended(self, outcome: Any, answer: "Deferred[Answer]") -> None:
        if answer in self._waiting:
            del self._waiting[answer]
            answer.callback(outcome)

    def stall(self, stalled: bool) -> None:
        """The log has stalled, or it goes on."""
        self._stalled = stalled
        if stalled:
            waiting, self._waiting = self._waiting, {}
            for answer in waiting:
                answer.callback(_answer("The server could not save this yet, and may still do so: ask again"))
