"""Request bodies: what is let through and what is refused."""

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.rules.errors import MatrixError
from homeserver.web.body import MAX_NESTING, decode, decode_object, decode_typed, holds_nul


class Wanted(msgspec.Struct):
    limit: int
    name: str | None = None


def refusal(body: bytes, function: Any = decode, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(MatrixError) as caught:
        function(body, *arguments)
    return caught.value.status, caught.value.errcode


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 400])
def test_a01_numbers_that_are_none(number: bytes) -> None:
    assert refusal(b'{"a": [{"b": ' + number + b"}]}") == (400, "M_NOT_JSON")


@pytest.mark.parametrize("value", [b"true", b"1.0", b'"1"', b"null"])
def test_a03_an_integer_is_an_integer(value: bytes) -> None:
    assert refusal(b'{"limit": ' + value + b"}", decode_typed, Wanted) == (400, "M_BAD_JSON")


def test_a03_the_field_is_named() -> None:
    with pytest.raises(MatrixError, match=r"\$\.limit"):
        decode_typed(b'{"limit": false}', Wanted)


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 1000, 1025, 500_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a04_nesting(depth: int, brackets: tuple[bytes, bytes]) -> None:
    start, end = brackets
    status, errcode = refusal(start * depth + (b"1" if start != b"[" else b"") + end * depth)
    assert status == 400 and errcode in ("M_BAD_JSON", "M_NOT_JSON")
    assert refusal(start * depth, decode)[0] == 400


def test_a04_the_limit_itself_is_allowed() -> None:
    assert decode(b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    assert len(decode(b"[" + b"[]," * 5000 + b"[]]")) == 5001


@pytest.mark.parametrize(
    "text",
    [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', '"x"'.encode("utf-16")],
)
def test_a06_text_that_is_none(text: bytes) -> None:
    assert refusal(b'{"a":' + text + b"}") == (400, "M_NOT_JSON")


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b"{} {}", b"\xef\xbb\xbf{}", b'"\x00"'])
def test_a06_not_json(body: bytes) -> None:
    assert refusal(body) == (400, "M_NOT_JSON")


def test_a07_nul_is_refused_in_typed_bodies_and_kept_in_free_ones() -> None:
    body = rb'{"limit": 1, "name": "a\u0000b"}'
    assert refusal(body, decode_typed, Wanted) == (400, "M_BAD_JSON")
    assert decode_object(body)["name"] == "a\0b"
    assert decode_typed(rb'{"limit": 1, "name": "\\u0000"}', Wanted).name == r"\u0000"


def test_an_absent_body_is_an_empty_object() -> None:
    assert decode_object(b"") == {}
    assert refusal(b"", decode_typed, Wanted) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"x"'])
def test_an_object_is_wanted(body: bytes) -> None:
    assert refusal(body, decode_object) == (400, "M_BAD_JSON")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_is_json_comes_through(value: Any) -> None:
    assert decode(orjson.dumps(value)) == value
    assert holds_nul(value) == (b"\\u0000" in orjson.dumps(value).replace(b"\\\\", b""))


@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(body: bytes) -> None:
    try:
        decode(body)
    except MatrixError as error:
        assert error.status == 400
