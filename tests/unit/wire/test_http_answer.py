"""Reading answers to our requests, however they are cut into pieces; what could be read in two ways is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.wire.http_answer import MAX_HEAD, AnswerReader, HttpAnswer, HttpFailure, TooLarge

OK = b"HTTP/1.1 200 OK\r\n"
PLAIN = OK + b"Content-Length: 5\r\nX-A: 1\r\nx-a:  2 \r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + PLAIN
UNTIL_CLOSED = OK + b"\r\nhello"


def read(data: bytes, sizes: list[int] | None = None, max_bytes: int = 100) -> tuple[HttpAnswer | None, AnswerReader]:
    """Feed it in pieces of these sizes, the rest at once."""
    reader = AnswerReader(max_bytes)
    for size in sizes or []:
        answer = reader.feed(data[:size])
        if answer is not None:
            return answer, reader
        data = data[size:]
    return (reader.feed(data) if data else None), reader


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([PLAIN, CHUNKED, INTERIM]), st.lists(st.integers(1, 40), max_size=60))
def test_an_answer_is_the_same_in_whatever_pieces_it_comes(data: bytes, sizes: list[int]) -> None:
    answer, reader = read(data, sizes)
    assert answer is not None and (answer.status, answer.body, reader.kept) == (200, b"hello", True)
    whole, _ = read(data)
    assert answer == whole


def test_the_last_field_of_a_name_counts() -> None:
    answer, _ = read(PLAIN)
    assert answer is not None and answer.headers == {"content-length": "5", "x-a": "2"}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10), max_size=10))
def test_a_body_without_length_ends_with_the_connection(sizes: list[int]) -> None:
    answer, reader = read(UNTIL_CLOSED, sizes)
    assert answer is None
    answer = reader.ended()
    assert answer is not None and answer.body == b"hello" and not reader.kept


@pytest.mark.parametrize("data", [b"", OK, PLAIN[:-1], CHUNKED[:-2]])
def test_e01_an_end_before_its_time_is_no_answer(data: bytes) -> None:
    answer, reader = read(data)
    assert answer is None and reader.ended() is None


@pytest.mark.parametrize(
    "data",
    [
        PLAIN + b"HTTP/1.1 200 OK\r\n",
        CHUNKED + b"x",
        OK + b"Connection: Close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\nx",
    ],
    ids=["another answer", "more behind the chunks", "close", "1.0", "a body where there is none"],
)
def test_such_a_connection_carries_no_further_request(data: bytes) -> None:
    answer, reader = read(data)
    assert answer is not None and not reader.kept


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_without_bodies_end_with_their_header(status: bytes) -> None:
    answer, reader = read(b"HTTP/1.1 " + status + b"\r\nETag: 1\r\n\r\n")
    assert answer is not None and answer.body == b"" and reader.kept


@pytest.mark.parametrize(
    "data",
    [
        b"no HTTP\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 999 x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\n",
        OK + b"Content-Length: 5, 5\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Content-Length : 5\r\n\r\n",
        OK + b"X: 1\r\n folded\r\n\r\n",
        OK + b"X: 1\nContent-Length: 5\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * 100,
        OK + b"X: " + b"x" * MAX_HEAD,
    ],
)
def test_what_is_no_clear_http_is_refused(data: bytes) -> None:
    for sizes in ([], [1] * len(data) if len(data) < 1000 else [MAX_HEAD]):
        with pytest.raises(HttpFailure):
            read(data + b"\r\n\r\n", sizes)


@pytest.mark.parametrize("data", [PLAIN, CHUNKED, UNTIL_CLOSED])
def test_e02_a_body_beyond_the_limit_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge):
        read(data, max_bytes=4)
    answer, reader = read(data, max_bytes=5)
    assert (answer or reader.ended()) is not None
