"""The pure table of interactive sessions."""

import itertools

import pytest

from federation.rules.errors import MatrixError
from homeserver.accounts.interactive_auth import Sessions

FLOWS = (("m.login.password",),)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def table(clock: Clock, **options: int) -> Sessions:
    ids = itertools.count()
    return Sessions(clock, lambda: f"s{next(ids)}", lifetime=60.0, **options)


def test_b03_sessions_expire() -> None:
    clock = Clock()
    sessions = table(clock)
    session = sessions.open("@a:x", "op", FLOWS, {}, b"1")
    clock.now = 59.9
    assert sessions.resume(session.session_id, "@a:x", "op", b"1") is session
    clock.now = 60.0
    with pytest.raises(MatrixError):
        sessions.resume(session.session_id, "@a:x", "op", b"1")


@pytest.mark.parametrize(
    ("user_id", "operation", "digest"),
    [("@b:x", "op", b"1"), ("@a:x", "other", b"1"), ("@a:x", "op", b"2"), (None, "op", b"1")],
)
def test_b03_sessions_are_for_one_request(user_id: str | None, operation: str, digest: bytes) -> None:
    sessions = table(Clock())
    session = sessions.open("@a:x", "op", FLOWS, {}, b"1")
    with pytest.raises(MatrixError) as refused:
        sessions.resume(session.session_id, user_id, operation, digest)
    assert refused.value.status == 403


def test_b03_sessions_are_used_once_and_only_when_complete() -> None:
    sessions = table(Clock())
    session = sessions.open("@a:x", "op", FLOWS, {}, b"1")
    with pytest.raises(MatrixError):
        sessions.use(session)
    sessions.complete(session, "m.login.password")
    sessions.use(session)
    with pytest.raises(MatrixError):
        sessions.use(session)
    with pytest.raises(MatrixError):
        sessions.resume(session.session_id, "@a:x", "op", b"1")


def test_b04_only_offered_stages_complete() -> None:
    sessions = table(Clock())
    session = sessions.open("@a:x", "op", FLOWS, {}, b"1")
    with pytest.raises(MatrixError):
        sessions.complete(session, "m.login.dummy")
    assert session.completed == []


def test_the_table_is_bounded_and_the_oldest_go_first() -> None:
    sessions = table(Clock(), max_sessions=3)
    opened = [sessions.open("@a:x", "op", FLOWS, {}, b"1").session_id for _ in range(5)]
    assert [sessions.find(session_id) is not None for session_id in opened] == [
        False,
        False,
        True,
        True,
        True,
    ]
