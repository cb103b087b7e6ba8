"""Sync and timeline tokens."""

import pytest

from federation.rules.errors import MatrixError
from homeserver.sync import tokens


def test_tokens_survive_the_round_trip() -> None:
    assert tokens.parse(tokens.sync_token("ab12", 7)) == tokens.SyncToken("ab12", 7, 7)
    assert tokens.parse(tokens.sync_token("ab12", 7, 5)) == tokens.SyncToken("ab12", 7, 5)
    assert tokens.sync_token("ab12", 7, 7) == "sab12_7"
    assert tokens.parse(tokens.timeline_token("ab12", 7, -3)) == tokens.TimelineToken("ab12", 7, -3)


@pytest.mark.parametrize(
    "text",
    ["", "7", "s_7", "sab_", "sab_-1", "tab_7", "x1_2", "sab_7 ", "s" + "a" * 99 + "_1", "sab_٣", "sab_1_2_3"],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(MatrixError) as refusal:
        tokens.parse(text)
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_INVALID_PARAM")


def test_since_of_this_epoch_is_a_position() -> None:
    assert tokens.since("sab_7", "ab", 9) == (7, 7)
    assert tokens.since("sab_7_3", "ab", 9) == (7, 3)
    assert tokens.since("sab_7_9", "ab", 9) == (7, 7)
    assert tokens.since("tab_7_3", "ab", 9) == (7, 0)
    assert tokens.since(None, "ab", 9) is None
    assert tokens.since("", "ab", 9) is None


def test_i13_a_token_of_another_epoch_or_from_the_future_starts_afresh() -> None:
    assert tokens.since("sold_7", "ab", 9) is None
    assert tokens.since("sab_10", "ab", 9) is None
