"""Packing of keys: big-endian integers and length-prefixed parts, so that bytes sort as meant.

LMDB takes keys of 1 to 511 bytes. A *part* is a string of any length packed into 1 to 121 bytes, so that a
key of four parts (or three and some integers) always fits, whatever identifiers arrive. A part is
reversible only when its string is short; rows that list strings keep them in the value as well.
"""

import struct
from hashlib import blake2b
from typing import Final

MAX_KEY: Final = 511
PART_LIMIT: Final = 120
BIAS: Final = 1 << 63
OUTLIER_SEQ: Final = BIAS - 1
"""In the event-id index: the event has no place in the room's order."""
LAST: Final = b"\xff" * 8

_Q = struct.Struct(">Q")
_QQ = struct.Struct(">QQ")
_QQQ = struct.Struct(">QQQ")


def u64(number: int) -> bytes:
    """A position or room number as 8 bytes. Raises ``struct.error`` outside 0..2^64-1."""
    return _Q.pack(number)


def from_u64(data: bytes, offset: int = 0) -> int:
    """The number that :func:`u64` packed at ``offset``."""
    number: int = _Q.unpack_from(data, offset)[0]
    return number


def seq_key(room_nid: int, seq: int) -> bytes:
    """Key in EVENTS and THREADS; ``seq`` may be negative (history fetched later)."""
    return _QQ.pack(room_nid, seq + BIAS)


def from_seq_key(data: bytes) -> tuple[int, int]:
    """``(room_nid, seq)`` of the first 16 bytes."""
    room_nid, biased = _QQ.unpack_from(data)
    return room_nid, biased - BIAS


def timestamp_key(room_nid: int, ts: int, seq: int) -> bytes:
    """Key in TIMESTAMPS; ``ts`` in milliseconds, may be negative (a remote server's clock)."""
    return _QQQ.pack(room_nid, ts + BIAS, seq + BIAS)


def from_timestamp_key(data: bytes) -> tuple[int, int, int]:
    """``(room_nid, ts, seq)``."""
    room_nid, ts, seq = _QQQ.unpack(data)
    return room_nid, ts - BIAS, seq - BIAS


def part(text: str) -> bytes:
    """A string as one part of a key: a length byte and its utf-8, or 0xFF and a 32-byte hash when longer.

    Lone surrogates (which no JSON edge lets in) are packed too, so that no identifier can raise here.
    """
    data = text.encode("utf-8", "surrogatepass")
    if len(data) <= PART_LIMIT:
        return bytes((len(data),)) + data
    return b"\xff" + blake2b(data, digest_size=32).digest()


def after_prefix(prefix: bytes) -> bytes:
    """The first key that is greater than every key starting with ``prefix`` (not all 0xFF)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,))


def scope_hash(scope: str) -> bytes:
    """16 bytes that stand for a transaction's scope (path and transaction id)."""
    return blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()
