"""Key backup through its endpoints, against a real PostgreSQL."""

from collections.abc import Callable
from itertools import product
from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred

from federation.rules.errors import MatrixError
from homeserver.client.key_backup import KeyBackup
from homeserver.keys.key_backup import KeyBackups
from homeserver.web.call import Call, Requester
from homeserver.web.routes import RouteTable
from storage.tables.database import Database

ROOM, SESSION = "!room:here", "sess/ion"


class Client:
    """Calls the endpoints as a user."""

    def __init__(self, database: Database) -> None:
        self._routes = {(r.method, r.path): r for r in KeyBackup(KeyBackups(database)).routes()}
        assert RouteTable(self._routes.values())

    async def __call__(self, method: str, path: str, body: Any = None, user: str = "@alice:here", **query: str) -> Any:
        names = ["/keys", "/keys/{roomId}", "/keys/{roomId}/{sessionId}", "/version", "/version/{version}"]
        parts = path.split(" ")
        name = next(n for n in names if n.count("{") == len(parts) - 1 and n.startswith(parts[0]))
        params = dict(zip(("roomId", "sessionId") if parts[0] == "/keys" else ("version",), parts[1:], strict=False))
        target = "/x?" + "&".join(f"{key}={value}" for key, value in query.items())
        call = Call(method, target, {}, b"" if body is None else orjson.dumps(body))
        call.params, call.sender = params, Requester(user, "PHONE")
        route = self._routes[method, "/_matrix/client/v3/room_keys" + name]
        return orjson.loads(orjson.dumps(await route.handler(call)))


def key(first: int = 0, forwarded: int = 0, verified: bool = False, data: Any = "secret") -> dict[str, Any]:
    return {
        "first_message_index": first,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": data,
    }


@pytest.fixture
def client(database: Database, people: Callable[..., None]) -> Client:
    people(alice=["PHONE"], bob=["PHONE"])
    return Client(database)


VERSION = {"algorithm": "m.megolm_backup.v1", "auth_data": {"public_key": "abc"}}


async def refused(awaitable: Any, status: int, errcode: str) -> MatrixError:
    with pytest.raises(MatrixError) as error:
        await awaitable
    assert (error.value.status, error.value.errcode) == (status, errcode)
    return error.value


@ensureDeferred
async def test_versions(client: Client) -> None:
    await refused(client("GET", "/version"), 404, "M_NOT_FOUND")
    assert await client("POST", "/version", VERSION) == {"version": "1"}
    assert await client("GET", "/version") == {**VERSION, "version": "1", "etag": "0", "count": 0}
    assert await client("POST", "/version", {**VERSION, "auth_data": "text"}) == {"version": "2"}
    assert (await client("GET", "/version"))["version"] == "2"
    assert (await client("GET", "/version 1"))["auth_data"] == VERSION["auth_data"]
    await client("PUT", "/version 1", {**VERSION, "auth_data": [1]})
    assert (await client("GET", "/version 1"))["auth_data"] == [1]
    await refused(client("PUT", "/version 1", {**VERSION, "version": "2"}), 400, "M_INVALID_PARAM")
    await refused(client("PUT", "/version 1", {**VERSION, "algorithm": "other"}), 400, "M_INVALID_PARAM")
    for unknown in "3", "x", "1" * 30, "-1", "¹":
        await refused(client("GET", f"/version {unknown}"), 404, "M_NOT_FOUND")
        await refused(client("PUT", f"/version {unknown}", VERSION), 404, "M_NOT_FOUND")
        await refused(client("DELETE", f"/version {unknown}"), 404, "M_NOT_FOUND")
    await refused(client("GET", "/version 1", user="@bob:here"), 404, "M_NOT_FOUND")


@ensureDeferred
async def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(client: Client) -> None:
    await client("POST", "/version", VERSION)
    await client("POST", "/version", VERSION)
    await client("PUT", f"/keys {ROOM} {SESSION}", key(), version="2")
    for _ in range(2):
        assert await client("DELETE", "/version 2") == {}
    await refused(client("GET", "/version 2"), 404, "M_NOT_FOUND")
    await refused(client("GET", "/keys", version="2"), 404, "M_NOT_FOUND")
    await refused(client("PUT", "/keys", {"rooms": {}}, version="2"), 404, "M_NOT_FOUND")
    assert (await client("GET", "/version"))["version"] == "1"
    assert await client("POST", "/version", VERSION) == {"version": "3"}


@ensureDeferred
async def test_keys_by_session_by_room_and_all(client: Client) -> None:
    await client("POST", "/version", VERSION)
    assert await client("GET", "/keys", version="1") == {"rooms": {}}
    assert await client("GET", f"/keys {ROOM}", version="1") == {"sessions": {}}
    await refused(client("GET", f"/keys {ROOM} {SESSION}", version="1"), 404, "M_NOT_FOUND")
    await refused(client("GET", "/keys"), 400, "M_MISSING_PARAM")
    await refused(client("GET", "/keys", version="9"), 404, "M_NOT_FOUND")

    assert await client("PUT", f"/keys {ROOM} {SESSION}", key(), version="1") == {"etag": "1", "count": 1}
    two = {"sessions": {SESSION: key(), "b": key(1)}}
    assert await client("PUT", f"/keys {ROOM}", two, version="1") == {"etag": "2", "count": 2}
    more = {"rooms": {ROOM: {"sessions": {}}, "!b:here": {"sessions": {"c": key(2, 3, True, {"x": [None]})}}}}
    assert await client("PUT", "/keys", more, version="1") == {"etag": "3", "count": 3}
    # Nothing better, nothing changed.
    assert await client("PUT", "/keys", more, version="1") == {"etag": "3", "count": 3}

    rooms = {"!b:here": {"sessions": {"c": key(2, 3, True, {"x": [None]})}}, ROOM: two}
    assert await client("GET", "/keys", version="1") == {"rooms": rooms}
    assert await client("GET", f"/keys {ROOM}", version="1") == two
    assert await client("GET", f"/keys {ROOM} {SESSION}", version="1") == key()
    assert (await client("GET", "/version"))["count"] == 3

    assert await client("DELETE", f"/keys {ROOM} nothing", version="1") == {"etag": "3", "count": 3}
    assert await client("DELETE", f"/keys {ROOM} {SESSION}", version="1") == {"etag": "4", "count": 2}
    assert await client("DELETE", f"/keys {ROOM}", version="1") == {"etag": "5", "count": 1}
    assert await client("DELETE", "/keys", version="1") == {"etag": "6", "count": 0}
    await refused(client("DELETE", "/keys", version="9"), 404, "M_NOT_FOUND")


@ensureDeferred
async def test_only_the_current_version_takes_keys(client: Client) -> None:
    await client("POST", "/version", VERSION)
    await client("POST", "/version", VERSION)
    error = await refused(
        client("PUT", f"/keys {ROOM} {SESSION}", key(), version="1"), 403, "M_WRONG_ROOM_KEYS_VERSION"
    )
    assert error.body()["current_version"] == "2"


@ensureDeferred
async def test_the_better_key_is_kept(client: Client) -> None:
    """Verified before unverified, then the lower index, then the lower count: all pairs of a small set."""
    await client("POST", "/version", VERSION)
    grades = [(not verified, first, forwarded) for verified, first, forwarded in product((True, False), (0, 1), (0, 1))]
    for i, (one, other) in enumerate(product(grades, grades)):
        for name, grade in ("one", one), ("other", other):
            await client(
                "PUT", f"/keys {ROOM} s{i}", key(grade[1], grade[2], not grade[0], name), version="1"
            )
        kept = await client("GET", f"/keys {ROOM} s{i}", version="1")
        assert kept["session_data"] == ("other" if other < one else "one"), (one, other)


@pytest.mark.parametrize(
    "changes",
    [
        {"first_message_index": True},  # a03: a boolean is no integer
        {"first_message_index": -1},
        {"first_message_index": 2**60},
        {"first_message_index": 1.5},
        {"forwarded_count": "1"},
        {"is_verified": 1},
        {"session_data": "nul \0"},
    ],
)
@ensureDeferred
async def test_a03_bad_keys_are_refused(client: Client, changes: dict[str, Any]) -> None:
    await client("POST", "/version", VERSION)
    await refused(client("PUT", f"/keys {ROOM} {SESSION}", key() | changes, version="1"), 400, "M_BAD_JSON")
    await refused(client("PUT", f"/keys {ROOM} {'x' * 256}", key(), version="1"), 400, "M_INVALID_PARAM")
    assert await client("GET", "/keys", version="1") == {"rooms": {}}
