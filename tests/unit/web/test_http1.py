"""Heads of several requests on one connection: what is remembered of one must not show in another."""

import pytest

from homeserver.web.http1 import MAX_REMEMBERED, BadRequest, HeadReader

FIELDS = b"\r\nHost: a\r\nAuthorization: Bearer one"


def test_the_same_fields_are_read_once() -> None:
    reader = HeadReader()
    first = reader.read(b"GET /1 HTTP/1.1" + FIELDS)
    second = reader.read(b"PUT /2 HTTP/1.1" + FIELDS)
    assert (second.method, second.target) == ("PUT", "/2")
    assert second.headers is first.headers


def test_other_fields_are_read_anew() -> None:
    reader = HeadReader()
    reader.read(b"GET /1 HTTP/1.1" + FIELDS)
    other = reader.read(b"POST /2 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer two\r\nContent-Length: 7\r\nConnection: close")
    assert other.headers["authorization"] == "Bearer two"
    assert (other.length, other.keep_alive) == (7, False)
    bare = reader.read(b"GET /3 HTTP/1.1\r\nHost: a")
    assert (bare.headers, bare.length, bare.keep_alive) == ({"host": "a"}, 0, True)


def test_the_version_decides_about_equal_fields() -> None:
    reader = HeadReader()
    chunked = FIELDS + b"\r\nTransfer-Encoding: chunked"
    assert reader.read(b"GET / HTTP/1.1" + FIELDS).keep_alive
    assert not reader.read(b"GET / HTTP/1.0" + FIELDS).keep_alive
    assert reader.read(b"POST / HTTP/1.1" + chunked).length is None
    with pytest.raises(BadRequest):
        reader.read(b"POST / HTTP/1.0" + chunked)
    reader.read(b"GET / HTTP/1.0")
    with pytest.raises(BadRequest):
        reader.read(b"GET / HTTP/1.1")


def test_what_was_refused_is_refused_again() -> None:
    reader = HeadReader()
    for _ in range(2):
        with pytest.raises(BadRequest):
            reader.read(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b")


def test_long_fields_are_not_kept() -> None:
    reader = HeadReader()
    long = FIELDS + b"\r\nX: " + b"x" * MAX_REMEMBERED
    first = reader.read(b"GET / HTTP/1.1" + long)
    second = reader.read(b"GET / HTTP/1.1" + long)
    assert second.headers == first.headers
    assert second.headers is not first.headers
