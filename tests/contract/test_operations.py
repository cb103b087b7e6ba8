"""Every operation of the Client-Server API that is built, against the specification's OpenAPI description of it.

Example requests are accepted, answers fit their schema, and what is wrong gets the right Matrix error.
"""

import os
import re
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from tests.contract.caller import Reply
from tests.contract.cases import CASES, Case, default_params
from tests.contract.extensions import EXTENSIONS
from tests.contract.guests import BESIDE, LISTED
from tests.contract.openapi import Operation, operations, properties, required, spec_folder
from tests.contract.routes import Declared, declared_routes
from tests.contract.world import World
from tests.contract.wrong_values import wrong_values

FOLDER = spec_folder()
if FOLDER is None and os.environ.get("CI") == "true":
    raise RuntimeError("the specification is missing: set FOLKMOOT_SPEC")
if FOLDER is None:
    pytest.skip("no specification: set FOLKMOOT_SPEC to its folder", allow_module_level=True)

COMMON = {"M_BAD_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_UNKNOWN", "M_THREEPID_DENIED"}
"""Codes for a body of the wrong shape ("Common error codes")."""
LARGEST = 1024 * 1024
NOT_JSON = {
    "cut short": b"{",
    "not UTF-8": b"\xff\xfe{}",
    "NaN": b'{"a": NaN}',
    "overflow": b'{"a": 1e999}',
    "deep": b"[" * 3_000,
}


def shape(path: str) -> str:
    """A path without the names of its parameters."""
    return re.sub(r"\{[^}]*\}", "{}", path)


ROUTES: dict[tuple[str, str], Declared] = {(r.method, shape(r.path)): r for r in declared_routes()}
ALL = list(operations(FOLDER))
TWINS = ("inviteBy3PID", "peekEvents")
"""Operations with the method and path of another one."""
REFUSED_FIRST = {"M_FORBIDDEN", "M_THREEPID_DENIED"}
"""Codes of a refusal that does not depend on the body."""
BODY_UNUSED = ("requestOpenIdToken",)
"""Operations whose body is always empty; it is not looked at."""
SIGNED_IN_ONLY = ("deactivateAccount", "changePassword")
"""Operations that take a token or a completed e-mail confirmation; without e-mail they need the token."""
TOKEN_OPTIONAL = ("getRoomSummary",)
"""Operations that servers may answer without token, as their prose says."""
OPAQUE = {
    ("postRoomKeysVersion", "auth_data"),
    ("putRoomKeysVersion", "auth_data"),
    ("putRoomKeyBySessionId", "session_data"),
}
"""Fields kept for clients without a look at them: objects in the schema, but SyTest sends text and wants it back."""
BUILT = [o for o in ALL if (o.method, shape(o.path)) in ROUTES and o.operation_id not in TWINS]
UNBUILT = [o for o in ALL if (o.method, shape(o.path)) not in ROUTES and o.operation_id not in TWINS]
WITH_BODY = [o for o in BUILT if o.body is not None and o.operation_id not in BODY_UNUSED]
TYPED = [(o, name) for o in WITH_BODY for name in sorted(properties(o.body or {})) if name != "auth"]
KEPT = [(o, name) for o, name in TYPED if (o.operation_id, name) in OPAQUE]
NEEDED = [(o, name) for o in WITH_BODY for name in required(o.body or {})]


def by_id(operation: Any) -> str:
    """The name of a parametrised test."""
    return operation.operation_id if isinstance(operation, Operation) else str(operation)


def case_of(world: World, operation: Operation) -> Case:
    """The example request of an operation, complete."""
    make = CASES.get(operation.operation_id)
    case = make(world) if make else Case()
    values = default_params(world)
    for name in operation.parameters("path"):
        if name not in case.params:
            case.params[name] = values[name]() if name in values else "unknown"
    for name, parameter in operation.parameters("query").items():
        if parameter.get("required") and name not in case.query:
            case.query[name] = str(parameter.get("example", "unknown"))
    if case.body is None:
        case.body = operation.example_bodies()[0]
    case.person = case.person or world.alice
    return case


def path_of(operation: Operation, case: Case) -> str:
    """The path with its parameters filled in."""
    return re.sub(r"\{([^}]*)\}", lambda found: quote(case.params[found[1]], safe=""), operation.path)


def send(world: World, operation: Operation, case: Case, **changes: Any) -> Reply:
    """Send a case's request, with some of it changed."""
    person = case.person or world.alice
    sent = {"token": person.token, "query": case.query}
    if "raw" not in changes:
        sent["body"] = case.body
    reply = world.caller.call(operation.method, path_of(operation, case), **(sent | changes))
    assert reply.errcode != "M_UNRECOGNIZED" or operation not in BUILT, "declared, but not wired"
    return reply


@pytest.mark.parametrize("operation", BUILT, ids=by_id)
def test_example_is_accepted(world: World, operation: Operation) -> None:
    """The specification's example gets an answer of the described shape."""
    case = case_of(world, operation)
    reply = send(world, operation, case)
    if asks_for_authentication(reply):
        validate(operation, reply)
        reply = authenticated(world, operation, case, case.body or {}, reply)
    assert reply.status in case.status, reply
    validate(operation, reply)


def asks_for_authentication(reply: Reply) -> bool:
    """Whether the call has to be made again, with a proof of who makes it (user-interactive authentication)."""
    return reply.status == 401 and isinstance(reply.body, dict) and "flows" in reply.body


def authenticated(world: World, operation: Operation, case: Case, body: dict[str, Any], asked: Reply) -> Reply:
    """The answer to a call whose authentication was ``asked`` for, with it."""
    if operation.operation_id == "register":
        auth = {"type": "m.login.dummy", "session": asked.body["session"]}
        return send(world, operation, case, body=body | {"auth": auth})
    return world.authenticated(case.person or world.alice, operation.method, path_of(operation, case), body)


def validate(operation: Operation, reply: Reply) -> None:
    """The answer fits the schema that the specification gives for its status; errors are Matrix errors."""
    schema = operation.answer_schema(reply.status)
    if schema is not None:
        jsonschema.validate(reply.body, schema, cls=jsonschema.Draft202012Validator)
    if reply.status >= 400:
        assert reply.errcode or "flows" in reply.body
        assert isinstance(reply.body.get("error", ""), str)
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("operation", BUILT, ids=by_id)
def test_b01_tokens(world: World, operation: Operation) -> None:
    """No token, an unknown one, an empty one, one of another scheme."""
    case = case_of(world, operation)
    if operation.operation_id in TOKEN_OPTIONAL:
        reply = send(world, operation, case, token="syt_unknown")
        assert (reply.status, reply.errcode) == (401, "M_UNKNOWN_TOKEN")
        return
    if not operation.needs_token and operation.operation_id not in SIGNED_IN_ONLY:
        assert send(world, operation, case, token=None).errcode not in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")
        return
    expected = {
        "M_MISSING_TOKEN": [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer "}],
        "M_UNKNOWN_TOKEN": [{"Authorization": "Bearer syt_unknown"}, {"Authorization": "Bearer " + "x" * 5000}],
    }
    for errcode, variants in expected.items():
        for headers in variants:
            reply = send(world, operation, case, token=None, headers=headers)
            assert (reply.status, reply.errcode) == (401, errcode), headers


@pytest.mark.parametrize("operation", [o for o in WITH_BODY if o.needs_token], ids=by_id)
def test_b01_a_token_is_asked_for_before_the_body_is_read(world: World, operation: Operation) -> None:
    """Who may not call hears nothing about what was wrong with the call."""
    for raw in (b"{", b"[]", b'{"auth": 5}'):
        reply = send(world, operation, case_of(world, operation), token=None, raw=raw)
        assert (reply.status, reply.errcode) == (401, "M_MISSING_TOKEN")


GUARDED = [o for o in BUILT if o.needs_token or o.operation_id in SIGNED_IN_ONLY]


@pytest.mark.parametrize("operation", GUARDED, ids=by_id)
def test_b01_deactivated_users(world: World, operation: Operation) -> None:
    """The token of an account that is no more opens nothing."""
    reply = send(world, operation, case_of(world, operation), token=world.gone.token)
    assert (reply.status, reply.errcode) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize("operation", GUARDED, ids=by_id)
def test_b01_guests(world: World, operation: Operation) -> None:
    """Guests get what the specification lists for them, and what the server opens beside it, and nothing else."""
    case = case_of(world, operation)
    if operation.operation_id in ("joinRoom", "joinRoomById"):  # into a room that lets guests in
        state = {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}
        name = "roomId" if "roomId" in case.params else "roomIdOrAlias"
        case.params[name] = world.room(initial_state=[state])
    reply = send(world, operation, case, token=world.guest().token)
    allowed = (operation.method, shape(operation.path)) in LISTED | BESIDE.keys()
    if "/admin/lock/" in operation.path:
        assert reply.errcode == "M_FORBIDDEN"  # as for all who are no administrators
    else:
        assert (reply.errcode == "M_GUEST_ACCESS_FORBIDDEN") == (not allowed), reply


def test_b01_guests_change_their_display_name_only(world: World) -> None:
    """In their profiles."""
    guest = world.guest()
    path = f"/_matrix/client/v3/profile/{quote(guest.user_id)}"
    for name, expected in (("displayname", None), ("avatar_url", "M_GUEST_ACCESS_FORBIDDEN")):
        for method, body in (("PUT", {name: "x"}), ("DELETE", None)):
            reply = world.caller.call(method, f"{path}/{name}", token=guest.token, body=body)
            assert reply.errcode == expected, (method, name, reply)


@pytest.mark.parametrize("operation", WITH_BODY, ids=by_id)
@pytest.mark.parametrize("raw", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_a01_not_json(world: World, operation: Operation, raw: bytes) -> None:
    """What is no JSON is refused as such."""
    reply = send(world, operation, case_of(world, operation), raw=raw)
    if reply.errcode not in REFUSED_FIRST:
        assert reply.status == 400, reply
        assert reply.errcode in ("M_NOT_JSON", "M_BAD_JSON")


@pytest.mark.parametrize("operation", WITH_BODY, ids=by_id)
def test_body_is_an_object(world: World, operation: Operation) -> None:
    """An array, a string or a number is no request."""
    for raw in (b"[]", b'"text"', b"1", b"true"):
        reply = send(world, operation, case_of(world, operation), raw=raw)
        if reply.errcode not in REFUSED_FIRST:
            assert reply.status == 400, (raw, reply)
            assert reply.errcode in ("M_BAD_JSON", "M_NOT_JSON")


@pytest.mark.parametrize("operation", WITH_BODY, ids=by_id)
def test_h02_too_large(world: World, operation: Operation) -> None:
    """A body over the limit gets 413 and is not worked on."""
    reply = send(world, operation, case_of(world, operation), raw=b'{"a": "' + b"x" * LARGEST * 60 + b'"}')
    assert (reply.status, reply.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(("operation", "name"), [key for key in TYPED if key not in KEPT], ids=by_id)
def test_a03_wrong_type(world: World, operation: Operation, name: str) -> None:
    """A field of another type than the schema's is refused; a boolean is no integer."""
    schema = properties(operation.body or {})[name]
    case = case_of(world, operation)
    for value in wrong_values(schema):
        body = (case.body or {}) | {name: value}
        reply = send(world, operation, case, body=body)
        if asks_for_authentication(reply):
            reply = authenticated(world, operation, case, body, reply)
        assert reply.status in (400, 403, 404), (value, reply)
        assert reply.errcode


@pytest.mark.parametrize(("operation", "name"), KEPT, ids=by_id)
def test_opaque_data_is_taken(world: World, operation: Operation, name: str) -> None:
    """What only clients read may be of any type."""
    case = case_of(world, operation)
    assert send(world, operation, case, body=(case.body or {}) | {name: "opaque text"}).status == 200


@pytest.mark.parametrize(("operation", "name"), NEEDED, ids=by_id)
def test_missing_field(world: World, operation: Operation, name: str) -> None:
    """A required field that is not there is named in an error."""
    case = case_of(world, operation)
    body = {key: value for key, value in (case.body or {}).items() if key != name}
    reply = send(world, operation, case, body=body)
    if asks_for_authentication(reply):
        reply = authenticated(world, operation, case, body, reply)
    assert reply.status in (400, 403), reply
    assert reply.errcode in COMMON | {"M_FORBIDDEN"}


@pytest.mark.parametrize("operation", UNBUILT, ids=by_id)
def test_unbuilt_says_so(world: World, operation: Operation) -> None:
    """An operation that is not built answers M_UNRECOGNIZED, with whatever it is asked."""
    case = case_of(world, operation)
    reply = send(world, operation, case)
    assert reply.status in (404, 405)
    assert reply.errcode == "M_UNRECOGNIZED"


OFFERED_ONLY = {"redirectToSSO", "redirectToIdP"}
"""Operations for those to whom the server has offered them: /login names no SSO."""


def brought_by(operation: Operation) -> tuple[int, ...]:
    """The version of the specification that an operation came with."""
    return tuple(int(part) for part in str(operation.description.get("x-addedInMatrixVersion", "1.0")).split("."))


def test_versions_promise_what_is_built(world: World) -> None:
    """What came with a claimed version is there; and something is missing from the next one, or it should be claimed."""
    body = world.caller.call("GET", "/_matrix/client/versions").body
    newest = max(tuple(int(part) for part in version[1:].split(".")) for version in body["versions"])
    missing = {o.operation_id: brought_by(o) for o in UNBUILT if o.operation_id not in OFFERED_ONLY}
    assert [name for name, version in missing.items() if (1, 0) < version <= newest] == []
    assert (newest[0], newest[1] + 1) in missing.values()


def test_parts_of_later_versions_are_there_under_their_old_names(world: World) -> None:
    """A client that finds them among `unstable_features`, or not at all, looks for them where they were before."""
    features = world.caller.call("GET", "/_matrix/client/versions").body["unstable_features"]
    assert features == dict.fromkeys(
        ("org.matrix.msc2285.stable", "org.matrix.msc3952_intentional_mentions", "uk.tcpip.msc4133.stable"), True
    )
    unstable, token = "/_matrix/client/unstable", world.alice.token
    room, event_id = quote(world.room_id), world.event_id
    world.must(world.alice, "POST", f"/rooms/{room}/receipt/m.read.private/{quote(event_id)}", {})
    rules = world.must(world.alice, "GET", "/pushrules/")["global"]["override"]
    assert ".m.rule.is_user_mention" in [rule["rule_id"] for rule in rules]
    world.must(world.alice, "PUT", f"/profile/{quote(world.alice.user_id)}/org.example.field", {"org.example.field": [1]})
    path = f"{unstable}/org.matrix.msc3030/rooms/{room}/timestamp_to_event"
    assert world.caller.call("GET", path, token=token, query={"ts": "0"}).status == 200
    refreshed = world.caller.call(
        "POST", f"{unstable}/org.matrix.msc2918/refresh", body={"refresh_token": world.person().refresh_token}
    )
    assert refreshed.status == 200 and "access_token" in refreshed.body


def test_declared_is_wired(world: World) -> None:
    """What an endpoint class declares is answered by the running server.

    Somebody of its own asks, for among what is asked is to be logged out.
    """
    missing = []
    asker = world.person()
    for operation in BUILT:
        path = re.sub(r"\{[^}]*\}", "x", operation.path)
        if world.caller.call(operation.method, path, token=asker.token).errcode == "M_UNRECOGNIZED":
            missing.append(f"{operation.method} {operation.path}")
    assert not missing


def test_every_route_is_known() -> None:
    """A route is in the specification or in the list of our own, and that list has nothing else."""
    described = {(o.method, shape(o.path)) for o in ALL}
    ours = {(method, shape(path)) for method, path in EXTENSIONS}
    built = {key for key in ROUTES if not key[1].startswith(("/_matrix/federation", "/_matrix/key"))}
    assert built - described - ours == set()
    assert ours - built == set()
