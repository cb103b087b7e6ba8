"""Every operation of the Server-Server API against the specification's OpenAPI description of it.

Requests are signed and asked of a whole homeserver by another one. What is right is answered as described; what is unsigned,
too large, no JSON or of the wrong shape gets a Matrix error that says so.
"""

import json
import os
import re
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest

from federation.inbound.operation import TRANSACTION_LIMIT
from tests.bench.servers import Server
from tests.contract.caller import Caller, Reply
from tests.contract.openapi import Operation, operations, properties, required, spec_folder
from tests.contract.peer_cases import CASES, PeerCase, PeerWorld
from tests.contract.wrong_values import wrong_values
from tests.fakes.homeservers import Homes

FOLDER = spec_folder()
if FOLDER is None and os.environ.get("CI") == "true":
    raise RuntimeError("the specification is missing: set FOLKMOOT_SPEC")
if FOLDER is None:
    pytest.skip("no specification: set FOLKMOOT_SPEC to its folder", allow_module_level=True)

UNBUILT = {"getContent", "getContentThumbnail", "getSpaceHierarchy", "askPolicyServerToSign", "queryInfo"}
"""Operations that answer M_UNRECOGNIZED: media and spaces are not built, a policy server is something else, and there are no
queries but those with a description of their own."""
ALL = list(operations(FOLDER, "server-server"))
BUILT = [operation for operation in ALL if operation.operation_id not in UNBUILT]
SIGNED = [operation for operation in BUILT if operation.description.get("security")]
WITH_BODY = [operation for operation in BUILT if operation.body is not None]
EVENT_BODIES = {"sendInviteV1", "sendJoinV2", "sendKnock", "sendLeaveV2", "exchangeThirdPartyInvite"}
"""Their bodies are events, of which the room version says more than the schema does."""
PLAIN = [operation for operation in WITH_BODY if operation.operation_id not in EVENT_BODIES]
UNUSED = {
    ("getMissingPreviousEvents", "earliest_events"),
    ("getMissingPreviousEvents", "latest_events"),
    ("onBindThirdPartyIdentifier", "medium"),
    ("onBindThirdPartyIdentifier", "address"),
    ("sendTransaction", "origin"),
    ("sendTransaction", "origin_server_ts"),
    ("sendTransaction", "pdus"),
    *((name, "origin") for name in EVENT_BODIES),
}
"""Fields that a request can do without: empty lists, what the signature says better, and the key that events had in the past."""
FIELDS = [(operation, name) for operation in WITH_BODY for name in required(operation.body or {})]
NEEDED = [(operation, name) for operation, name in FIELDS if (operation.operation_id, name) not in UNUSED]
SPARE = [(operation, name) for operation, name in FIELDS if (operation.operation_id, name) in UNUSED]
EMPTY_AT_LEAST = {
    ("getMissingPreviousEvents", "earliest_events"),
    ("getMissingPreviousEvents", "latest_events"),
    ("sendTransaction", "pdus"),
}
"""Those of them that have to be lists if they are there. The others are not looked at, and nor are networks of bridges."""
IGNORED = (UNUSED - EMPTY_AT_LEAST) | {
    ("queryPublicRooms", "include_all_networks"),
    ("queryPublicRooms", "third_party_instance_id"),
}
TYPED = [
    (operation, name)
    for operation in PLAIN
    for name in sorted(properties(operation.body or {}))
    if (operation.operation_id, name) not in IGNORED
]
QUERIES = [
    (operation, name)
    for operation in BUILT
    for name, parameter in operation.parameters("query").items()
    if parameter.get("required")
]
COMMON = {"M_BAD_JSON", "M_NOT_JSON", "M_INVALID_PARAM", "M_MISSING_PARAM", "M_FORBIDDEN", "M_INCOMPATIBLE_ROOM_VERSION"}
"""Codes for a request of the wrong shape."""


def by_id(value: Any) -> str:
    """The name of a parametrised test."""
    return value.operation_id if isinstance(value, Operation) else str(value)


@pytest.fixture(scope="module")
def world(homes: Homes) -> PeerWorld:
    """Two homeservers and a room of both."""
    return PeerWorld(homes)


def send(world: PeerWorld, operation: Operation, case: PeerCase, **changes: Any) -> Reply:
    """A case's request, with some of it changed. A server's failure is never right."""
    path = re.sub(r"\{([^}]*)\}", lambda found: quote(case.params[found[1]], safe=""), operation.path)
    sent = {"query": case.query, "body": case.body} | changes
    reply = world.ask(operation.method, path, **sent)
    assert reply.status < 500, reply
    if reply.status >= 400:
        assert reply.errcode and isinstance(reply.body["error"], str), reply
    return reply


def test_every_operation_is_tried_or_known_not_to_be_there() -> None:
    listed = json.loads((FOLDER / "endpoints.json").read_text())
    names = {entry["operationId"] for entry in listed if entry["api"] == "server-server"}
    assert names - {operation.operation_id for operation in ALL} == set()
    assert {operation.operation_id for operation in BUILT} == CASES.keys()


@pytest.mark.parametrize("operation", BUILT, ids=by_id)
def test_what_is_right_is_answered_as_described(world: PeerWorld, operation: Operation) -> None:
    case = CASES[operation.operation_id](world)
    reply = send(world, operation, case)
    assert reply.status == case.status, reply
    schema = operation.answer_schema(reply.status)
    if schema is not None:
        jsonschema.validate(reply.body, without_origin(schema), cls=jsonschema.Draft202012Validator)
    assert reply.headers["content-type"].startswith("application/json")


def without_origin(schema: Any) -> Any:
    """The schema of an answer in which no event needs `origin`: the descriptions of invites ask for it, event formats lack it."""
    if isinstance(schema, list):
        return [without_origin(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: without_origin(part) for key, part in schema.items()}
    if isinstance(parts.get("required"), list) and "state_key" in parts["required"]:
        parts["required"] = [name for name in parts["required"] if name != "origin"]
    return parts


@pytest.mark.parametrize("operation", [o for o in ALL if o.operation_id in UNBUILT], ids=by_id)
def test_what_is_not_built_says_so(world: PeerWorld, operation: Operation) -> None:
    case = PeerCase(dict.fromkeys(operation.parameters("path"), "unknown"), body=operation.example_bodies()[0])
    reply = send(world, operation, case)
    assert (reply.status, reply.errcode) == (404, "M_UNRECOGNIZED")


@pytest.mark.parametrize("operation", SIGNED, ids=by_id)
def test_without_a_right_signature_nothing_is_done(world: PeerWorld, operation: Operation) -> None:
    case = CASES[operation.operation_id](world)
    spoilt = {
        "none": lambda _: "",
        "a client's": lambda _: f"Bearer {world.alice.token}",
        "garbage": lambda _: "X-Matrix",
        "of another server": lambda header: header.replace(world.peer.name, "other.example", 1),
        "for another server": lambda header: header.replace(world.asked.name, "other.example"),
        "wrong": lambda header: re.sub('sig="[^"]{4}', 'sig="AAAA', header),
    }
    for name, header in spoilt.items():
        reply = send(world, operation, case, header=header)
        assert (reply.status, reply.errcode) == (401, "M_UNAUTHORIZED"), name
    reply = send(world, operation, case)
    assert reply.status == case.status, "it was the signature"


@pytest.mark.parametrize("operation", [o for o in BUILT if o not in SIGNED], ids=by_id)
def test_what_anybody_may_ask_needs_no_signature(world: PeerWorld, operation: Operation) -> None:
    assert send(world, operation, CASES[operation.operation_id](world), header=lambda _: "").status == 200


@pytest.mark.parametrize("operation", WITH_BODY, ids=by_id)
def test_a01_bodies_that_are_no_json_or_no_object(world: PeerWorld, operation: Operation) -> None:
    case = CASES[operation.operation_id](world)
    for raw in (b"{", b"\xff\xfe{}", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 3_000, b"nothing"):
        reply = send(world, operation, case, raw=raw)
        assert reply.status == 400 and reply.errcode in ("M_NOT_JSON", "M_BAD_JSON"), (raw[:20], reply)
    for value in ([], "text", 1, True):
        reply = send(world, operation, case, body=value)
        assert reply.status == 400 and reply.errcode in ("M_BAD_JSON", "M_INVALID_PARAM"), (value, reply)


@pytest.mark.parametrize("operation", WITH_BODY, ids=by_id)
def test_h02_bodies_that_are_too_large(contract_server: Server, operation: Operation) -> None:
    """Cut off while they come, before anybody has looked for a signature."""
    path = re.sub(r"\{[^}]*\}", "x", operation.path)
    raw = b'{"a": "' + b"x" * TRANSACTION_LIMIT + b'"}'
    reply = Caller(contract_server.host, contract_server.port).call(operation.method, path, raw=raw)
    assert (reply.status, reply.errcode) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(("operation", "name"), NEEDED, ids=by_id)
def test_a_body_without_what_it_needs(world: PeerWorld, operation: Operation, name: str) -> None:
    case = CASES[operation.operation_id](world)
    body = {key: value for key, value in case.body.items() if key != name}
    reply = send(world, operation, case, body=body)
    assert reply.status in (400, 403) and reply.errcode in COMMON, reply


@pytest.mark.parametrize(("operation", "name"), SPARE, ids=by_id)
def test_a_body_without_what_it_can_do_without(world: PeerWorld, operation: Operation, name: str) -> None:
    case = CASES[operation.operation_id](world)
    body = {key: value for key, value in case.body.items() if key != name}
    assert send(world, operation, case, body=body).status == case.status


@pytest.mark.parametrize(("operation", "name"), TYPED, ids=by_id)
def test_a03_a_field_of_another_type(world: PeerWorld, operation: Operation, name: str) -> None:
    case = CASES[operation.operation_id](world)
    for value in wrong_values(properties(operation.body or {})[name]):
        reply = send(world, operation, case, body={**case.body, name: value})
        assert reply.status in (400, 403) and reply.errcode in COMMON, (value, reply)


@pytest.mark.parametrize(("operation", "name"), QUERIES, ids=by_id)
def test_a_question_without_what_it_needs(world: PeerWorld, operation: Operation, name: str) -> None:
    case = CASES[operation.operation_id](world)
    query = {key: value for key, value in case.query.items() if key != name}
    reply = send(world, operation, case, query=query)
    assert reply.status in (400, 401) and reply.errcode in COMMON | {"M_MISSING_TOKEN"}, reply


@pytest.mark.parametrize("operation", [o for o in SIGNED if "roomId" in o.parameters("path")], ids=by_id)
def test_d07_a_room_that_is_not_here(world: PeerWorld, operation: Operation) -> None:
    case = CASES[operation.operation_id](world)
    case.params["roomId"] = f"!nowhere:{world.asked.name}"
    reply = send(world, operation, case)
    assert reply.status in (400, 403, 404), reply
    assert reply.errcode in {"M_FORBIDDEN", "M_NOT_FOUND", "M_INVALID_PARAM"}
