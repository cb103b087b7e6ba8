"""federation.wire.key_validity: what identity servers say of their keys."""

from typing import Any

import pytest
import pytest_twisted

from federation.rules.errors import MatrixError
from federation.wire.key_validity import MAX_BYTES, KeyValidity
from tests.fakes.wire import FakeHttp, answer

URL = "https://id.example/_matrix/identity/v2/pubkey/isvalid"


@pytest.mark.parametrize(
    ("body", "status", "valid"),
    [({"valid": True}, 200, True), ({"valid": False}, 200, False), ({"valid": 1}, 200, False), ({"valid": True}, 404, False),
     ([], 200, False)],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_what_it_says(body: Any, status: int, valid: bool) -> None:
    http = FakeHttp()
    http.on("id.example", 443, lambda sent: answer(body, status))
    assert await KeyValidity(http, "F").is_valid(URL, "a+b/c") is valid
    sent = http.sent[0]
    assert (sent.method, sent.path) == ("GET", "/_matrix/identity/v2/pubkey/isvalid?public_key=a%2Bb%2Fc")


@pytest.mark.parametrize("url", ["http://id.example/x", "https:///x", "ftp://id.example/x", "x", "https://id.example/ü"])
@pytest_twisted.ensureDeferred
async def test_addresses_that_are_not_asked(url: str) -> None:
    http = FakeHttp()
    with pytest.raises(MatrixError) as caught:
        await KeyValidity(http, "F").is_valid(url, "k")
    assert caught.value.status == 502 and http.sent == []


@pytest_twisted.ensureDeferred
async def test_no_answer_is_no_verdict() -> None:
    http = FakeHttp()
    for body in (None, b"{" * MAX_BYTES):
        if body is not None:
            http.on("id.example", 443, lambda sent: answer("x" * (2 * MAX_BYTES)))
        with pytest.raises(MatrixError) as caught:
            await KeyValidity(http, "F").is_valid(URL, "k")
        assert caught.value.status == 502
