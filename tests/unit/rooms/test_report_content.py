"""Reports of events, rooms and users, kept in PostgreSQL."""

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted

from homeserver.client.report_content import ReportContent
from homeserver.web.limits import Limits
from homeserver.web.router import Router
from storage.tables.database import Database
from storage.tables.reports import reports
from storage.tables.users import UserRow, insert_user
from tests.fakes.room_server import V3, RoomServer, Tokens
from tests.fakes.web import Client

Report = Callable[..., Any]


@pytest.fixture
def report(server: RoomServer, database: Database) -> Report:
    """Make a report: ``report(who, path, body)`` gives status and body."""
    routes = ReportContent(server.reading, database, "x", lambda: 1234).routes()
    client = Client(Router(routes, Tokens(), Limits({}, server.clock.seconds)))

    async def make(who: str, path: str, body: object) -> tuple[int, Any]:
        return await client.request("POST", V3 + path, body, token=who)

    return make


@pytest_twisted.ensureDeferred
async def test_reports_are_kept(server: RoomServer, database: Database, report: Report) -> None:
    room = server.create("alice", preset="public_chat")
    server.join("bob", room)
    event = server.say("alice", room)
    await database.run(lambda cur: insert_user(cur, UserRow("@alice:x", None, 0)))
    assert await report("bob", f"/rooms/{room}/report/{event}", {"reason": "rude", "score": -100}) == (200, {})
    assert await report("carol", f"/rooms/{room}/report", {"reason": ""}) == (200, {})
    assert await report("bob", "/users/@alice:x/report", {"reason": "rude"}) == (200, {})
    assert await report("bob", "/users/@eve:elsewhere/report", {"reason": "rude"}) == (200, {})
    kept = await database.run(lambda cur: reports(cur, 10))
    assert [tuple(row) for row in reversed(kept)] == [
        (1234, "@bob:x", "event", room, event, "@alice:x", "rude"),
        (1234, "@carol:x", "room", room, None, None, ""),
        (1234, "@bob:x", "user", None, None, "@alice:x", "rude"),
        (1234, "@bob:x", "user", None, None, "@eve:elsewhere", "rude"),
    ]


@pytest_twisted.ensureDeferred
async def test_reports_refused(server: RoomServer, database: Database, report: Report) -> None:
    room = server.create("alice", preset="public_chat")
    event = server.say("alice", room)
    unseen = await report("bob", f"/rooms/{room}/report/{event}", {})
    assert (unseen[0], unseen[1]["errcode"]) == (404, "M_NOT_FOUND")
    for path, body, status, errcode in (
        (f"/rooms/{room}/report/$nothing", {}, 404, "M_NOT_FOUND"),
        ("/rooms/!nowhere:x/report", {"reason": ""}, 404, "M_NOT_FOUND"),
        ("/users/@nobody:x/report", {"reason": ""}, 404, "M_NOT_FOUND"),
        ("/users/nobody/report", {"reason": ""}, 400, "M_INVALID_PARAM"),
        (f"/rooms/{room}/report", {}, 400, "M_BAD_JSON"),
        (f"/rooms/{room}/report/{event}", {"reason": 5}, 400, "M_BAD_JSON"),
        (f"/rooms/{room}/report/{event}", {"reason": "a\0b"}, 400, "M_BAD_JSON"),
    ):
        answer = await report("alice", path, body)
        assert (answer[0], answer[1]["errcode"]) == (status, errcode), path
    assert await database.run(lambda cur: reports(cur, 10)) == []
