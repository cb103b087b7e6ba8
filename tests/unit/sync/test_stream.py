"""The WebSocket protocol machine: frames in, actions out."""

import json
from typing import Any

import pytest

from federation.rules.errors import MatrixError
from homeserver.sync.stream import (
    MAX_REQUESTS,
    Acknowledge,
    Action,
    Close,
    Code,
    Delivery,
    Hello,
    Request,
    Send,
    State,
    Stream,
)


def frame(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def sent(actions: list[Action]) -> list[Any]:
    return [json.loads(action.frame) for action in actions if isinstance(action, Send)]


def closing(actions: list[Action]) -> int | None:
    return next((action.code for action in actions if isinstance(action, Close)), None)


def live() -> Stream:
    stream = Stream()
    stream.received(frame(type="hello", access_token="t"))
    stream.accepted("@a:x", "D", "se_1")
    return stream


def test_hello_carries_what_the_client_wants() -> None:
    actions = Stream().received(
        frame(type="hello", access_token="t", since="se_4", filter={"room": {}}, set_presence="offline", unread=True)
    )
    assert actions == [Hello("t", "se_4", {"room": {}}, "offline", True)]


def test_the_header_token_serves_when_the_frame_has_none() -> None:
    assert Stream("from-header").received(frame(type="hello")) == [Hello("from-header", None, None, "online", False)]


def test_welcome_tells_who_and_from_where() -> None:
    stream = Stream("t")
    stream.received(frame(type="hello"))
    assert sent(stream.accepted("@a:x", "D", None)) == [
        {"type": "welcome", "user_id": "@a:x", "device_id": "D", "since": None}
    ]
    assert stream.state == State.LIVE


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (frame(type="ack", next_batch="se_1"), Code.NO_HELLO),
        (b"not json", Code.BAD_FRAME),
        (b"[]", Code.NO_HELLO),
        (b'{"type":"hello","access_token":NaN}', Code.BAD_FRAME),
        (b'{"type":"hello","access_token":"\\ud800"}', Code.BAD_FRAME),
        (frame(type="hello", access_token=7), Code.BAD_FRAME),
        (frame(type="hello"), Code.UNKNOWN_TOKEN),
        (frame(type="hello", access_token="t", filter=[]), Code.BAD_FRAME),
        (frame(type="hello", access_token="t", set_presence="here"), Code.BAD_FRAME),
        (b"[" * 5000 + b"]" * 5000, Code.BAD_FRAME),
    ],
)
def test_a_bad_first_frame_closes(first: bytes, code: Code) -> None:
    stream = Stream()
    actions = stream.received(first)
    assert closing(actions) == code
    assert stream.received(frame(type="hello", access_token="t")) == []


def test_h04_no_hello_in_time() -> None:
    assert closing(Stream().hello_overdue()) == Code.NO_HELLO
    assert live().hello_overdue() == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, Code.UNKNOWN_TOKEN),
        (403, Code.FORBIDDEN),
        (400, Code.BAD_FRAME),
        (429, Code.TOO_MANY_CONNECTIONS),
        (503, Code.INTERNAL),
    ],
)
def test_a_refusal_is_told_before_the_close(status: int, code: Code) -> None:
    stream = Stream("t")
    stream.received(frame(type="hello"))
    actions = stream.refused(MatrixError(status, "M_X", "No", soft_logout=True))
    assert sent(actions) == [{"type": "error", "errcode": "M_X", "error": "No", "soft_logout": True}]
    assert closing(actions) == code


def test_a_second_hello_closes() -> None:
    assert closing(live().received(frame(type="hello", access_token="t"))) == Code.BAD_FRAME


def test_ack() -> None:
    assert live().received(frame(type="ack", next_batch="se_9")) == [Acknowledge("se_9")]
    assert closing(live().received(frame(type="ack"))) == Code.BAD_FRAME


def test_requests_and_responses() -> None:
    stream = live()
    path = "/_matrix/client/v3/account/whoami"
    assert stream.received(frame(type="request", id="r1", method="GET", path=path)) == [Request("r1", "GET", path, b"")]
    assert stream.received(frame(type="request", id=2, method="PUT", path=path, body={"a": 1})) == [
        Request(2, "PUT", path, b'{"a":1}')
    ]
    assert sent(stream.answered("r1", 200, {"ok": True})) == [
        {"type": "response", "id": "r1", "status": 200, "body": {"ok": True}}
    ]


@pytest.mark.parametrize(
    "bad",
    [
        {"id": True, "method": "GET", "path": "/_matrix/client/versions"},
        {"id": "x" * 200, "method": "GET", "path": "/_matrix/client/versions"},
        {"id": 1, "method": "PATCH", "path": "/_matrix/client/versions"},
        {"id": 1, "method": "GET", "path": "/_matrix/federation/v1/version"},
        {"id": 1, "method": "GET", "path": "/_matrix/client/v3/x y"},
        {"id": 1, "method": "GET", "path": "/_matrix/client/v3/x\r\n"},
        {"id": 1, "method": "GET"},
        {"method": "GET", "path": "/_matrix/client/versions"},
    ],
)
def test_a_bad_request_frame_closes(bad: dict[str, Any]) -> None:
    assert closing(live().received(frame(type="request", **bad))) == Code.BAD_FRAME


def test_too_many_requests_at_once_are_refused_one_by_one() -> None:
    stream = live()
    path = "/_matrix/client/versions"
    for number in range(MAX_REQUESTS):
        assert isinstance(stream.received(frame(type="request", id=number, method="GET", path=path))[0], Request)
    [refusal] = sent(stream.received(frame(type="request", id="more", method="GET", path=path)))
    assert (refusal["id"], refusal["status"], refusal["body"]["errcode"]) == ("more", 429, "M_LIMIT_EXCEEDED")
    stream.answered(3, 200, {})
    assert isinstance(stream.received(frame(type="request", id="more", method="GET", path=path))[0], Request)


def test_an_unknown_frame_is_answered_and_the_stream_goes_on() -> None:
    stream = live()
    assert sent(stream.received(frame(type="dance")))[0]["errcode"] == "M_UNRECOGNIZED"
    assert stream.state == State.LIVE


def test_ping() -> None:
    assert sent(live().received(frame(type="ping", id="7"))) == [{"type": "pong", "id": "7"}]


def test_nothing_is_said_after_the_close() -> None:
    stream = live()
    assert closing(stream.close(Code.RESTART, "restart")) == 4000
    assert stream.close(Code.RESTART, "again") == []
    assert stream.answered(1, 200, {}) == []
    assert stream.accepted("@a:x", "D", None) == []


def test_h05_a_full_socket_costs_a_number() -> None:
    delivery = Delivery(sent=5)
    assert delivery.offer_shared(6)
    delivery.congested = True
    assert not delivery.offer_shared(7)
    assert not delivery.start_delta()
    delivery.drained()
    assert not delivery.offer_shared(8), "the missed change has to come first"
    assert delivery.start_delta() and delivery.sent == 6
    assert not delivery.offer_shared(9), "a delta is on its way"
    delivery.delta_sent(8)
    assert delivery.start_delta(), "position 9 came while the delta was built"
    delivery.delta_sent(9)
    assert delivery.offer_shared(10) and not delivery.start_delta()
