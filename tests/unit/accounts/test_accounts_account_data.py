"""Account data and tags."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from homeserver.accounts.account_data import AccountData
from homeserver.client.account_data import AccountDataEndpoints
from homeserver.client.tags import TagEndpoints
from storage.memory import MemoryLog
from storage.tables.database import Database
from tests.fakes.accounts import AccountServer

USER = "/_matrix/client/v3/user/@alice:example.org"
ROOM = f"{USER}/rooms/!room:example.org"


class Here:
    def __init__(self, database: Database) -> None:
        data = AccountData(MemoryLog(reactor))  # type: ignore[arg-type]
        routes = AccountDataEndpoints(data).routes() + TagEndpoints(data).routes()
        self.server = AccountServer(database, reactor, extra_routes=routes)

    async def call(self, method: str, path: str, body: Any = b"") -> tuple[int, Any]:
        if self.server.client.token is None:
            self.server.client.token = (await self.server.register("alice"))["access_token"]
        return await self.server.client.request(method, path, body)


@pytest.fixture
def here(database: Database) -> Iterator[Here]:
    here = Here(database)
    yield here
    here.server.accounts.passwords.stop()


@ensureDeferred
async def test_account_data_of_account_and_room_are_apart(here: Here) -> None:
    assert (await here.call("GET", f"{USER}/account_data/org.x"))[0] == 404
    assert await here.call("PUT", f"{USER}/account_data/org.x", {"a": "nul \u0000"}) == (200, {})
    assert await here.call("PUT", f"{ROOM}/account_data/org.x", {"b": 2}) == (200, {})
    assert await here.call("GET", f"{USER}/account_data/org.x") == (200, {"a": "nul \u0000"})
    assert await here.call("GET", f"{ROOM}/account_data/org.x") == (200, {"b": 2})
    assert (await here.call("PUT", f"{USER}/account_data/org.x", [1]))[0] == 400
    other = "/_matrix/client/v3/user/@bob:example.org/account_data/org.x"
    assert (await here.call("PUT", other, {}))[0] == 403
    assert (await here.call("GET", other))[0] == 403


@ensureDeferred
async def test_types_the_server_keeps_itself_are_refused(here: Here) -> None:
    for path in (f"{ROOM}/account_data/m.fully_read", f"{USER}/account_data/m.push_rules"):
        status, body = await here.call("PUT", path, {})
        assert (status, body["errcode"]) == (405, "M_BAD_JSON")


@ensureDeferred
async def test_tags_have_an_order_from_0_to_1(here: Here) -> None:
    assert await here.call("GET", f"{ROOM}/tags") == (200, {"tags": {}})
    assert await here.call("PUT", f"{ROOM}/tags/u.work", {"order": 0.5}) == (200, {})
    assert (await here.call("PUT", f"{ROOM}/tags/m.favourite"))[0] == 200
    for order in (1.5, -1, "0.5", True, []):
        assert (await here.call("PUT", f"{ROOM}/tags/u.bad", {"order": order}))[0] == 400
    assert await here.call("GET", f"{ROOM}/tags") == (200, {"tags": {"u.work": {"order": 0.5}, "m.favourite": {}}})
    assert await here.call("DELETE", f"{ROOM}/tags/u.work") == (200, {})
    assert await here.call("DELETE", f"{ROOM}/tags/u.work") == (200, {})
    assert await here.call("GET", f"{ROOM}/account_data/m.tag") == (200, {"tags": {"m.favourite": {}}})
