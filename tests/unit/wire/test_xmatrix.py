"""federation.wire.xmatrix: the grammar of the header, and headers that nobody meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.rules.signing import SigningKey, signature_is_valid
from federation.wire import xmatrix
from federation.wire.xmatrix import Credentials, XMatrixError, parse

EXPECTED = Credentials("a.example:8448", "b.example", "ed25519:1", "c2ln")
KEY = SigningKey.from_seed(b"k" * 32)


@pytest.mark.parametrize(
    "header",
    [
        'X-Matrix origin="a.example:8448",destination="b.example",key="ed25519:1",sig="c2ln"',
        "X-Matrix origin=a.example:8448,destination=b.example,key=ed25519:1,sig=c2ln",
        'x-matrix   SIG="c2ln" ,\tkey="ed25519:1" , destination="b.example",origin=a.example:8448',
        'X-Matrix origin="a.example:8448",destination="b.exa\\mple",key="ed25519:1",sig="c2ln",new="x,y=z"',
        'X-Matrix ,origin=a.example:8448,,destination=b.example,key="ed25519:1",signature="c2ln",',
    ],
)
def test_d11_headers_that_mean_the_same(header: str) -> None:
    assert parse(header) == [EXPECTED]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "X-Matrix ",
        "Bearer abc",
        'X-Matrix origin="a.example",key="ed25519:1"',
        'X-Matrix origin="a.example",origin="b.example",key="ed25519:1",sig="x"',
        'X-Matrix origin="a.example" key="ed25519:1",sig="x"',
        'X-Matrix origin="a.example,key="ed25519:1",sig="x"',
        'X-Matrix origin="a.example",key="ed25519:1",sig="x',
        'X-Matrix origin="a..example",key="ed25519:1",sig="x"',
        'X-Matrix origin="a.example",key="rsa:1",sig="x"',
        'X-Matrix origin="a.example",key="ed25519:1",sig=""',
        'X-Matrix origin="a.example",key="ed25519:1",sig="x",X-Matrix origin="b.example",key="ed25519:1",sig="x"',
        "X-Matrix origin=" + "a" * 9000,
    ],
)
def test_d11_headers_that_are_refused(header: str) -> None:
    with pytest.raises(XMatrixError):
        parse(header)


def test_several_keys_of_one_server() -> None:
    one, two = 'origin=a.example,key="ed25519:1",sig="x"', 'origin=a.example,key="ed25519:2",sig="y"'
    found = parse(f"X-Matrix {one}, X-Matrix {two}")
    assert [entry.key_id for entry in found] == ["ed25519:1", "ed25519:2"]
    assert found[0].destination is None


def test_what_is_built_parses_and_verifies() -> None:
    content = {"pdus": [{"x": 1.5}]}
    header = xmatrix.build(KEY, "PUT", "/_matrix/x?y=%20", "a.example", "b.example:1", content)
    [found] = parse(header)
    assert (found.origin, found.destination, found.key_id) == ("a.example", "b.example:1", KEY.key_id)
    signed = xmatrix.request_object("PUT", "/_matrix/x?y=%20", "a.example", "b.example:1", content)
    assert signature_is_valid(xmatrix.bytes_to_sign(signed), found.signature, KEY.verify_key)


PIECES = st.sampled_from(
    ["X-Matrix ", "x-matrix\t", "origin", "=", '"', ",", "\\", " ", "a.example", "key", "ed25519:1", "sig", "\xff", "\x00"]
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200)))
def test_d11_generated_headers_never_crash_it(header: str) -> None:
    try:
        found = parse(header)
    except XMatrixError:
        return
    assert found and all(one.origin and one.key_id and one.signature for one in found)
