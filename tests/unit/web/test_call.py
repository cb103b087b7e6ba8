"""Queries, callbacks and answers."""

from typing import Any

import pytest

from federation.rules.errors import MatrixError
from homeserver.web.call import Answer, Call, error_answer


def call(query: str = "", **headers: str) -> Call:
    return Call("GET", "/path" + (f"?{query}" if query else ""), headers)


def test_query_parameters() -> None:
    asked = call("a=1&b=x%20y+z&a=2&empty=&flag=true&%C3%A9=%E2%82%AC")
    assert asked.query("a") == "1" and asked.query_list("a") == ["1", "2"]
    assert asked.query("b") == "x y z" and asked.query("empty") == "" and asked.query("none", "d") == "d"
    assert asked.query_bool("flag") and not asked.query_bool("none")
    assert asked.query("é") == "€"
    assert call().query("a") is None and call().query_list("a") == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5), ("100", 50), ("1" + "0" * 18, 50), ("9" * 5000, 50), ("0", 0), ("007", 7)],
)
def test_integers_are_capped(text: str, number: int) -> None:
    assert call(f"n={text}").query_int("n", 10, 0, 50) == number


@pytest.mark.parametrize("text", ["-1", "-" + "9" * 5000, "x", "1.5", "", "1e3", "%D9%A3", "-", "+1", " 1"])
def test_a03_integers_that_are_none(text: str) -> None:
    with pytest.raises(MatrixError) as caught:
        call(f"n={text}").query_int("n", 10, 0, 50)
    assert (caught.value.status, caught.value.errcode) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("query", ["a=%00", "a=%FF", "%C0%80=1", "a=%ED%A0%80", "&".join(["a=1"] * 500)])
def test_a06_queries_that_are_refused(query: str) -> None:
    with pytest.raises(MatrixError) as caught:
        call(query).query("a")
    assert caught.value.status == 400


def test_a_boolean_is_true_or_false() -> None:
    with pytest.raises(MatrixError):
        call("f=1").query_bool("f")


def test_callbacks_run_once_and_late_ones_at_once() -> None:
    heard: list[str] = []
    waiting = call()
    waiting.on_closed(lambda: heard.append("closed"))
    waiting.on_stopping(lambda: heard.append("stopping"))
    waiting.stop()
    waiting.stop()
    waiting.close()
    waiting.close()
    waiting.on_closed(lambda: heard.append("late"))
    assert heard == ["stopping", "closed", "late"]


def test_requester_of_an_open_route() -> None:
    with pytest.raises(RuntimeError):
        _ = call().requester


def test_answers() -> None:
    assert Answer(body=b"x").encoded() == b"x"
    assert Answer().encoded() == b"{}"
    refused: Any = error_answer(MatrixError(429, "M_LIMIT_EXCEEDED", "slow", retry_after_ms=1500))
    assert refused.headers == {"Retry-After": "2"} and refused.body["retry_after_ms"] == 1500
