"""The list of events that notified the user."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.push.notified import Notified
from homeserver.web.call import Call
from homeserver.web.routes import Route
from storage.log.append import Log

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class Notifications:
    """The endpoint of `notifications.yaml`."""

    def __init__(self, log: Log, notified: Notified) -> None:
        self._log = log
        self._notified = notified

    def routes(self) -> list[Route]:
        """The routes of this module."""
        return [Route("GET", "/_matrix/client/v3/notifications", self.get)]

    def get(self, call: Call) -> dict[str, Any]:
        """Notifications, newest first; `only=highlight` leaves out the others."""
        limit = call.query_int("limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
        before = self._log.position + 1
        token = call.query("from")
        if token is not None:
            if not (token.isascii() and token.isdigit() and len(token) <= 18):
                raise MatrixError(400, "M_INVALID_PARAM", "This is not a token of this endpoint")
            before = min(before, int(token))
        with self._log.snapshot() as snapshot:
            found, further = self._notified.before(
                snapshot, call.requester.user_id, before, limit, call.query("only") == "highlight"
            )
        answer: dict[str, Any] = {"notifications": found}
        if further is not None:
            answer["next_token"] = str(further)
        return answer
