"""Routes, callers, limits and errors, without sockets."""

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, succeed
from twisted.logger import globalLogPublisher

from federation.rules.errors import MatrixError
from homeserver.web.call import Answer, Call, Requester
from homeserver.web.limits import Limits, Rate
from homeserver.web.router import Auth, Route, Router
from homeserver.web.routes import RouteTable
from tests.fakes.web import Client

ALICE = Requester("@alice:test", "DEV")
PEOPLE = {
    "alice": ALICE,
    "guest": Requester("@1:test", is_guest=True),
    "root": Requester("@root:test", is_admin=True),
    "robot": Requester("@robot:test", unlimited=True),
}


class Tokens:
    def __init__(self, later: bool = False) -> None:
        self.later = later

    def authenticate(self, token: str, address: str, user_agent: str) -> Any:
        if token not in PEOPLE:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown token", soft_logout=False)
        return succeed(PEOPLE[token]) if self.later else PEOPLE[token]

    authenticate_even_locked = authenticate


def echo(call: Call) -> dict[str, Any]:
    return {**call.params, "sender": call.sender.user_id if call.sender else None}


async def later(call: Call) -> dict[str, Any]:
    await succeed(None)
    return echo(call)


async def refuse(call: Call) -> dict[str, Any]:
    await succeed(None)
    raise MatrixError(403, "M_FORBIDDEN", "no")


def fail(call: Call) -> dict[str, Any]:
    raise ValueError(f"{call.json_object()} of {call.token}")


async def fail_later(call: Call) -> dict[str, Any]:
    await succeed(None)
    return fail(call)


ROOMS = "/_matrix/client/v3/rooms/{roomId}"
ROUTES = [
    Route("GET", "/_matrix/client/versions", echo, Auth.NONE),
    Route("GET", "/_matrix/client/v3/account/whoami", echo, Auth.GUEST),
    Route("GET", ROOMS + "/state/{eventType}/", echo),
    Route("GET", ROOMS + "/state/{eventType}", echo),
    Route("GET", ROOMS + "/state/{eventType}/{stateKey}", later),
    Route("GET", ROOMS + "/state", lambda call: Answer(200, [])),
    Route("GET", "/_matrix/client/v3/rooms/fixed/state", lambda call: {"fixed": True}),
    Route("PUT", ROOMS + "/send/{eventType}/{txnId}", echo, limit="message"),
    Route("POST", "/open", echo, Auth.OPTIONAL, limit="open", aliases=("/unstable/open",)),
    Route("POST", "/admin", echo, Auth.SERVER_ADMIN),
    Route("POST", "/refuse", refuse),
    Route("POST", "/fail", fail),
    Route("POST", "/fail_later", fail_later),
]


def client(later: bool = False, query: bool = False) -> Client:
    limits = Limits({"message": Rate(1, 2), "open": Rate(1, 1)}, lambda: 0.0)
    return Client(Router(ROUTES, Tokens(later), limits, query_access_token=query), "alice")


@pytest.mark.parametrize("later", [False, True])
@ensureDeferred
async def test_b01_who_may_call_what(later: bool) -> None:
    here = client(later)
    here.token = None
    path = "/_matrix/client/v3/rooms/!a/state"
    whoami = "/_matrix/client/v3/account/whoami"
    table: list[tuple[str, str, str | None, int, str | None]] = [
        ("GET", path, None, 401, "M_MISSING_TOKEN"),
        ("GET", path, "", 401, "M_MISSING_TOKEN"),
        ("GET", path, "wrong", 401, "M_UNKNOWN_TOKEN"),
        ("GET", path, "alice x", 401, "M_UNKNOWN_TOKEN"),
        ("GET", path, "guest", 403, "M_GUEST_ACCESS_FORBIDDEN"),
        ("GET", path, "alice", 200, None),
        ("GET", whoami, "guest", 200, None),
        ("GET", "/_matrix/client/versions", "wrong", 200, None),
        ("POST", "/open", "wrong", 401, "M_UNKNOWN_TOKEN"),
        ("POST", "/open", "alice", 200, None),
        ("POST", "/open", None, 200, None),
        ("POST", "/admin", "alice", 403, "M_FORBIDDEN"),
        ("POST", "/admin", "guest", 403, "M_FORBIDDEN"),
        ("POST", "/admin", "root", 200, None),
    ]
    for method, where, token, status, errcode in table:
        answer = await here.request(method, where, token=token)
        assert answer[0] == status, (method, where, token)
        if errcode is not None:
            assert answer[1]["errcode"] == errcode


@pytest.mark.parametrize("header", ["Basic alice", "alice", "Bearer", "Bearer  ", ""])
@ensureDeferred
async def test_b01_malformed_authorization(header: str) -> None:
    here = client()
    here.token = None
    path = "/_matrix/client/v3/account/whoami"
    status, error = await here.request("GET", path, headers={"Authorization": header})
    assert (status, error["errcode"]) == (401, "M_MISSING_TOKEN")


@ensureDeferred
async def test_token_in_the_query_only_where_switched_on() -> None:
    path = "/_matrix/client/v3/account/whoami?access_token=alice"
    for switch, status in ((False, 401), (True, 200)):
        here = client(query=switch)
        here.token = None
        assert (await here.request("GET", path))[0] == status


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/_matrix/client/v3/rooms/!a:b/state/m.x/k", {"roomId": "!a:b", "eventType": "m.x", "stateKey": "k"}),
        ("/_matrix/client/v3/rooms/!a:b/state/m.x/", {"roomId": "!a:b", "eventType": "m.x"}),
        ("/_matrix/client/r0/rooms/!a:b/state/m.x", {"roomId": "!a:b", "eventType": "m.x"}),
        ("/_matrix/client/v3/rooms/%21a%2Fb/state/x%25", {"roomId": "!a/b", "eventType": "x%"}),
        ("/_matrix/client/v3/rooms/fixed/state/m.x", {"roomId": "fixed", "eventType": "m.x"}),
        ("/_matrix/client/v3/rooms/a+b/%73tate/%E2%82%AC", {"roomId": "a+b", "eventType": "€"}),
        ("/_matrix/client/v3/rooms/fixed/state", {"fixed": True}),
    ],
)
@ensureDeferred
async def test_paths(path: str, params: dict[str, Any]) -> None:
    status, answer = await client().request("GET", path)
    answer.pop("sender", None)
    assert (status, answer) == (200, params)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/_matrix/client/v3/rooms//state", 404),
        ("GET", "/_matrix/client/v3/rooms/!a/state/m.x/k/more", 404),
        ("GET", "/_matrix/client/v3/rooms/!a%2Fstate", 404),
        ("GET", "/_matrix/client/v3/account/whoami/", 404),
        ("GET", "/" * 5000, 404),
        ("PUT", "/_matrix/client/versions", 405),
        ("PATCH", "/open", 405),
        ("HEAD", "/open", 405),
        ("HEAD", "/_matrix/client/versions", 200),
        ("POST", "/unstable/open", 200),
    ],
)
@ensureDeferred
async def test_unknown_paths_and_methods(method: str, path: str, status: int) -> None:
    answer = await client().request(method, path)
    assert answer[0] == status
    if status != 200:
        assert answer[1]["errcode"] == "M_UNRECOGNIZED"


@pytest.mark.parametrize("segment", ["%FF", "%00", "%C0%80", "%ED%A0%80"])
@ensureDeferred
async def test_a06_path_segments_that_are_no_text(segment: str) -> None:
    status, error = await client().request("GET", f"/_matrix/client/v3/rooms/{segment}/state")
    assert (status, error["errcode"]) == (400, "M_INVALID_PARAM")


@ensureDeferred
async def test_options_everywhere_without_a_token() -> None:
    here = client()
    here.token = None
    for path in ("/_matrix/client/v3/account/whoami", "/nothing", "*"):
        assert await here.request("OPTIONS", path) == (200, {})


@ensureDeferred
async def test_limits_by_user_and_by_address() -> None:
    here = client()
    path = "/_matrix/client/v3/rooms/!a/send/m/1"
    assert [(await here.request("PUT", path))[0] for _ in range(3)] == [200, 200, 429]
    answer = await here.answer("PUT", path)
    assert answer.headers == {"Retry-After": "1"}
    assert [(await here.request("PUT", path, token="robot"))[0] for _ in range(5)] == [200] * 5
    here.token = None
    assert [(await here.request("POST", "/open"))[0] for _ in range(2)] == [200, 429]
    here.address = "192.0.2.2"
    assert (await here.request("POST", "/open"))[0] == 200


@pytest.mark.parametrize("path", ["/fail", "/fail_later"])
@ensureDeferred
async def test_b07_faults_are_logged_without_what_the_caller_sent(path: str) -> None:
    lines: list[str] = []

    def observe(event: Any) -> None:
        lines.append(str(event.get("fault", event)))

    globalLogPublisher.addObserver(observe)
    try:
        here = client()
        body = {"password": "planted-secret", "nested": [{"k": "planted-too"}]}
        status, answer = await here.request("POST", path + "?a=planted-query", body, token="root")
    finally:
        globalLogPublisher.removeObserver(observe)
    assert (status, answer) == (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
    logged = "\n".join(lines)
    assert "ValueError" in logged and "in fail" in logged
    assert "planted" not in logged and " of root" not in logged


@ensureDeferred
async def test_refusals_of_coroutines() -> None:
    assert (await client().request("POST", "/refuse"))[0] == 403
    assert (await client(later=True).request("POST", "/refuse"))[0] == 403


def test_a_call_is_answered_at_once_where_nothing_waits() -> None:
    here = client()
    whoami = "/_matrix/client/v3/account/whoami"
    assert isinstance(here.router.start(here.call("GET", whoami)), Answer)
    assert isinstance(here.router.start(here.call("POST", "/refuse")), Deferred)


def test_two_routes_for_one_path() -> None:
    with pytest.raises(ValueError):
        RouteTable([Route("GET", "/a/{x}", echo), Route("GET", "/b", echo, aliases=("/a/{y}",))])
