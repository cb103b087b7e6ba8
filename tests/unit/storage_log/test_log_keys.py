"""Packing of keys (case I08) and of log entries."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.log import keys
from storage.log.append import Kind, pack_entry, unpack_entry

seqs = st.integers(-(2**62), 2**62)


@given(st.text(max_size=600), st.text(max_size=600))
def test_i08_parts_fit_and_differ(one: str, other: str) -> None:
    assert 1 <= len(keys.part(one)) <= 121
    assert (keys.part(one) == keys.part(other)) == (one == other)
    # No part is the start of another, so that ranges by prefix hold one string's rows only.
    assert one == other or not keys.part(other).startswith(keys.part(one))


@given(st.integers(0, 2**63), seqs, seqs)
def test_rooms_sort_by_sequence_number_negative_ones_first(nid: int, one: int, other: int) -> None:
    assert (keys.seq_key(nid, one) < keys.seq_key(nid, other)) == (one < other)
    assert keys.from_seq_key(keys.seq_key(nid, one)) == (nid, one)
    assert keys.seq_key(nid, one) < keys.u64(nid + 1)


@given(st.integers(0, 2**63), seqs, seqs)
def test_timestamps_round_trip(nid: int, ts: int, seq: int) -> None:
    assert keys.from_timestamp_key(keys.timestamp_key(nid, ts, seq)) == (nid, ts, seq)


@given(st.binary(min_size=1, max_size=8).filter(lambda data: data.strip(b"\xff")), st.binary(max_size=4))
def test_after_prefix_is_behind_everything_that_starts_so(prefix: bytes, rest: bytes) -> None:
    assert prefix + rest < keys.after_prefix(prefix)


def test_a_part_takes_lone_surrogates() -> None:
    assert keys.part("\ud800") == b"\x03\xed\xa0\x80"


@given(st.sampled_from(Kind), st.text(max_size=80), st.text(max_size=80), st.text(max_size=300), st.binary(max_size=20))
def test_entries_round_trip(kind: Kind, room: str, user: str, device: str, ref: bytes) -> None:
    entry = unpack_entry(9, pack_entry(kind, room, user, device, ref))
    assert (entry.position, entry.kind, entry.room_id, entry.user_id) == (9, kind, room, user)
    assert (entry.device_id, entry.ref, entry.note) == (device, ref, None)


@pytest.mark.parametrize("data", [b"", b"\x01", struct.pack(">BHHH", 99, 0, 0, 0), struct.pack(">BHHH", 1, 5, 0, 0)])
def test_damaged_entries_are_recognised(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_entry(1, data)
