"""The machine that knows when a destination may be talked to, and whose fault a refusal is."""

import msgspec
import pytest

from federation.outbound.destination import (
    DORMANT_AFTER,
    FIRST_DELAY_MS,
    JITTER,
    LONGEST_DELAY_MS,
    MAX_PDUS,
    Destination,
    Remedy,
    Stored,
)


def failing(times: int, dice: float = 0.5) -> tuple[Destination, list[int]]:
    peer, now, delays = Destination("peer"), 1_000_000, []
    for _ in range(times):
        peer.begin()
        peer.unreachable(now, dice, "no route")
        delays.append(peer.retry_at - now)
        now = peer.retry_at
    return peer, delays


def test_e01_back_off_doubles_up_to_a_cap() -> None:
    peer, delays = failing(30)
    assert delays[0] == FIRST_DELAY_MS
    assert delays[1] == 2 * FIRST_DELAY_MS
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY_MS
    assert peer.dormant
    assert peer.reason == "no route"


def test_e01_back_off_has_jitter_both_ways() -> None:
    (low,) = failing(1, 0.0)[1]
    (high,) = failing(1, 1.0)[1]
    assert low == FIRST_DELAY_MS * (1 - JITTER)
    assert high == FIRST_DELAY_MS * (1 + JITTER)


def test_e01_back_off_survives_being_written_down() -> None:
    peer, _ = failing(6)
    peer.behind, peer.cursor = True, 17
    again = Destination.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(peer.stored()), type=Stored))
    assert (again.failures, again.retry_at, again.cursor, again.behind, again.reason) == (
        peer.failures,
        peer.retry_at,
        17,
        True,
        "no route",
    )
    assert not again.ready(again.retry_at - 1)
    assert again.ready(again.retry_at)


def test_a_sign_of_life_ends_the_wait() -> None:
    peer, _ = failing(DORMANT_AFTER)
    now = peer.retry_at - 1
    assert not peer.ready(now)
    assert peer.alive(now)
    assert peer.ready(now)
    assert not peer.dormant
    assert not peer.alive(now)


def test_success_forgets_failures() -> None:
    peer, _ = failing(3)
    peer.begin()
    assert not peer.ready(peer.retry_at)
    peer.accepted(peer.retry_at)
    assert (peer.failures, peer.retry_at, peer.reason) == (0, 0, "")


def refuse(peer: Destination, items: int, now: int = 0) -> Remedy:
    peer.begin()
    return peer.refused(now, 0.5, "bad", items)


def test_refusals_make_batches_smaller_and_success_larger() -> None:
    peer = Destination("peer")
    sizes = []
    while peer.room > 1:
        assert refuse(peer, peer.room) is Remedy.RETRY
        sizes.append(peer.room)
    assert sizes == [25, 12, 6, 3, 1]
    for _ in range(6):
        peer.begin()
        peer.accepted(1)
    assert peer.room == MAX_PDUS


def test_e03_one_item_is_set_aside_after_an_empty_transaction_was_taken() -> None:
    peer = Destination("peer", room=1)
    assert refuse(peer, 1) is Remedy.RETRY
    assert refuse(peer, 1) is Remedy.PROBE
    assert peer.ready(0)
    peer.begin()
    peer.accepted(0)
    assert refuse(peer, 1) is Remedy.SET_ASIDE


def test_e03_a_peer_that_refuses_everything_loses_nothing() -> None:
    peer = Destination("peer", room=1)
    for _ in range(20):
        assert refuse(peer, 1) is Remedy.RETRY
        assert refuse(peer, 1) is Remedy.PROBE
        assert refuse(peer, 0) is Remedy.RETRY
    assert peer.failures > DORMANT_AFTER


@pytest.mark.parametrize("asked", [1_000, 3_600_000])
def test_a_peer_is_left_alone_for_as_long_as_it_asks(asked: int) -> None:
    peer = Destination("peer")
    peer.begin()
    assert peer.refused(0, 0.5, "slow down", 10, asked) is Remedy.RETRY
    assert peer.retry_at == max(asked, FIRST_DELAY_MS)
    assert peer.room == MAX_PDUS
