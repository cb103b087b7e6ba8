"""Token buckets, against a naive one that is refilled step by step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.rules.errors import MatrixError
from homeserver.web.limits import Limits, Rate


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def allowed(limits: Limits, name: str, key: str, cost: float = 1) -> bool:
    try:
        limits.take(name, key, cost)
    except MatrixError as error:
        assert (error.status, error.errcode) == (429, "M_LIMIT_EXCEEDED")
        assert error.extra["retry_after_ms"] >= 1
        return False
    return True


@given(
    st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, 7.0]), st.integers(1, 3)), max_size=30),
)
def test_agrees_with_counting_tokens(per_second: float, burst: int, steps: list[tuple[float, int]]) -> None:
    time = Time()
    limits = Limits({"n": Rate(per_second, burst)}, time)
    tokens = float(burst)
    for pause, cost in steps:
        time.now += pause
        tokens = min(burst, tokens + pause * per_second)
        cost = min(cost, burst)
        expected = tokens >= cost
        assert (limits.wait("n", "k", cost) == 0) == expected
        assert allowed(limits, "n", "k", cost) == expected
        if expected:
            tokens -= cost


def test_waiting_as_told_is_enough() -> None:
    time = Time()
    limits = Limits({"n": Rate(0.17, 3)}, time)
    for _ in range(50):
        try:
            limits.take("n", "k")
        except MatrixError as error:
            time.now += error.extra["retry_after_ms"] / 1000
            limits.take("n", "k")


def test_keys_and_names_are_apart() -> None:
    limits = Limits({"n": Rate(1, 1), "m": Rate(1, 1)}, Time())
    assert allowed(limits, "n", "a") and allowed(limits, "n", "b") and allowed(limits, "m", "a")
    assert not allowed(limits, "n", "a")
    assert allowed(limits, "unlimited", "a") and allowed(limits, "unlimited", "a")


def test_the_table_is_bounded_and_keeps_the_busiest() -> None:
    time = Time()
    limits = Limits({"n": Rate(1, 2)}, time, max_keys=100)
    for _ in range(2):
        limits.take("n", "flood")
    for number in range(1000):
        limits.take("n", str(number))
    assert len(limits) <= 100
    assert not allowed(limits, "n", "flood")
    time.now += 10
    limits.take("n", "x")
    for number in range(100):
        limits.take("n", str(number))
    assert len(limits) <= 100


@pytest.mark.parametrize("rate", [Rate(0, 1), Rate(1, 0), Rate(-1, 5)])
def test_rates_that_never_let_anybody_through(rate: Rate) -> None:
    with pytest.raises(ValueError):
        Limits({"n": rate}, Time())
