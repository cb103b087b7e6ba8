"""Reports to the people who run this server (report_content.yaml)."""

from collections.abc import Callable
from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id, server_name_of
from homeserver.rooms.read import Reading
from homeserver.web.call import Call
from homeserver.web.routes import Route
from storage.log import rooms as room_log
from storage.tables import reports, users
from storage.tables.database import Database

BODY_LIMIT = 16 * 1024


class EventReport(msgspec.Struct):
    """Body of a report of an event; other keys (the former ``score``) are left alone."""

    reason: str | None = None


class ReasonedReport(msgspec.Struct):
    """Body of a report of a room or a user: the reason may be blank, but it is there."""

    reason: str


class ReportContent:
    """Takes reports of events, rooms and users and keeps them for the administrators."""

    def __init__(
        self, reading: Reading, database: Database, server_name: str, now_ms: Callable[[], int]
    ) -> None:
        self._reading = reading
        self._database = database
        self._server_name = server_name
        self._now_ms = now_ms

    def routes(self) -> list[Route]:
        """The operations of this module."""
        room, user = "/_matrix/client/v3/rooms/{roomId}/report", "/_matrix/client/v3/users/{userId}/report"
        return [
            Route("POST", room + "/{eventId}", self.post_report_event, limit="message", body_limit=BODY_LIMIT),
            Route("POST", room, self.post_report_room, limit="message", body_limit=BODY_LIMIT),
            Route("POST", user, self.post_report_user, limit="message", body_limit=BODY_LIMIT),
        ]

    async def post_report_event(self, call: Call) -> dict[str, Any]:
        """Report an event that the caller can see in a room that they are in."""
        request = call.json(EventReport)
        room_id, event_id = call.params["roomId"], call.params["eventId"]
        with self._reading.log.snapshot() as snapshot:
            try:
                reader = self._reading.open(snapshot, call.requester, room_id, peek=False)
            except MatrixError:
                raise _unseen() from None
            if not reader.joined:
                raise _unseen()
            sender = self._reading.event(reader, event_id).sender
        return await self._keep(call, "event", room_id, event_id, sender, request.reason)

    async def post_report_room(self, call: Call) -> dict[str, Any]:
        """Report a room; the caller need not be in it."""
        request = call.json(ReasonedReport)
        room_id = call.params["roomId"]
        with self._reading.log.snapshot() as snapshot:
            if room_log.room_meta(snapshot, room_id) is None:
                raise MatrixError(404, "M_NOT_FOUND", "The room was not found")
        return await self._keep(call, "room", room_id, None, None, request.reason)

    async def post_report_user(self, call: Call) -> dict[str, Any]:
        """Report a user. Of users of other servers nobody here knows whether they exist: any id will do."""
        request = call.json(ReasonedReport)
        user_id = call.params["userId"]
        if not is_valid_user_id(user_id):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a user id")
        if server_name_of(user_id) == self._server_name:
            known = await self._database.run_single(lambda cur: users.user_by_id(cur, user_id))
            if known is None:
                raise MatrixError(404, "M_NOT_FOUND", "The user was not found")
        return await self._keep(call, "user", None, None, user_id, request.reason)

    async def _keep(
        self,
        call: Call,
        kind: str,
        room_id: str | None,
        event_id: str | None,
        user_id: str | None,
        reason: str | None,
    ) -> dict[str, Any]:
        reporter = call.requester.user_id
        report = reports.Report(self._now_ms(), reporter, kind, room_id, event_id, user_id, reason)
        await self._database.run(lambda cur: reports.insert_report(cur, report))
        return {}


def _unseen() -> MatrixError:
    return MatrixError(404, "M_NOT_FOUND", "The event was not found or you are not joined to the room")
