"""Cases A01 to A08: canonical JSON out, other servers' JSON in."""

import json

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.rules import canonical_json
from federation.rules.errors import MatrixError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(-(2**53) + 1, 2**53 - 1),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
JSON_WITH_FLOATS = st.recursive(
    st.none() | TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def naive(value):
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: [ord(char) for char in pair[0]])
        return "{" + ",".join(naive(key) + ":" + naive(inner) for key, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(naive(inner) for inner in value) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(JSON)
def test_a08_encoding_agrees_with_a_naive_encoder_and_with_canonicaljson(value):
    encoded = canonical_json.encode(value)
    assert encoded == naive(value).encode()
    assert encoded == canonicaljson.encode_canonical_json(value)
    assert canonical_json.encode_lax(value) == encoded
    assert canonical_json.encode(canonical_json.decode_strict(encoded)) == encoded


@given(JSON_WITH_FLOATS)
def test_a08_lax_encoding_agrees_with_canonicaljson_on_any_number(value):
    encoded = canonical_json.encode_lax(value)
    assert encoded == canonicaljson.encode_canonical_json(value)
    assert canonical_json.encode_lax(canonical_json.decode_strict(encoded)) == encoded


@pytest.mark.parametrize("value", [1.5, 1.0, -0.0, float("nan"), float("inf"), 2**53, -(2**53), 2**64, 10**400])
def test_a02_strict_encoding_refuses_what_is_no_53_bit_integer(value):
    for holder in (value, [value], {"a": {"b": [value]}}):
        with pytest.raises(MatrixError) as caught:
            canonical_json.encode(holder)
        assert (caught.value.status, caught.value.errcode) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")], "\ud800", {"\udfff": 1}, {1: 2}, b"x"])
def test_lax_encoding_refuses_what_json_does_not_have(value):
    with pytest.raises(MatrixError):
        canonical_json.encode_lax(value) if value != {1: 2} else canonical_json.encode(value)


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b""])
def test_a01_non_numbers_are_refused(text):
    for body in (text, b'{"a":[' + text + b"]}"):
        with pytest.raises(MatrixError) as caught:
            canonical_json.decode_strict(body if text else b"")
        assert (caught.value.status, caught.value.errcode) == (400, "M_NOT_JSON")


@pytest.mark.parametrize("levels", [221, 1000, 100_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a04_deep_nesting_is_refused(levels, brackets):
    opening, closing = brackets
    with pytest.raises(MatrixError):
        canonical_json.decode_strict(opening * levels + b"1" + closing * levels)
    with pytest.raises(MatrixError):
        canonical_json.decode_strict(opening * levels + b"1.5" + closing * levels)


def test_a04_what_may_be_encoded_may_be_decoded_inside_a_transaction():
    event: object = 1
    for _ in range(canonical_json.MAX_ENCODE_DEPTH):
        event = [event]
    body = b'{"pdus":[' + canonical_json.encode(event) + b"]}"
    assert canonical_json.decode_strict(body) == {"pdus": [event]}
    with pytest.raises(MatrixError):
        canonical_json.encode([event])
    with pytest.raises(MatrixError):
        canonical_json.encode_lax([event, 1.5])


@pytest.mark.parametrize(
    "text", [b'{"a":1,"a":2}', b'{"a":1,"a":1}', b'{"x":{"\\u0061":1, "a":1}}', b'[1.5,{"a":1,"a":1}]']
)
def test_a05_duplicate_keys_are_refused(text):
    with pytest.raises(MatrixError):
        canonical_json.decode_strict(text)


@pytest.mark.parametrize("text", [b'"\\ud800"', b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', '"a"'.encode("utf-16")])
def test_a06_broken_unicode_is_refused(text):
    with pytest.raises(MatrixError):
        canonical_json.decode_strict(text)


def test_a06_lone_surrogates_are_not_encoded():
    with pytest.raises(MatrixError):
        canonical_json.encode({"a": "\ud800"})


def test_a07_a_nul_is_carried_escaped():
    assert canonical_json.encode("\0") == b'"\\u0000"'
    assert canonical_json.decode_strict(b'"\\u0000"') == "\0"


def test_greater_integers_stay_exact_when_decoded():
    assert canonical_json.decode_strict(b"[18446744073709551617]") == [2**64 + 1]
