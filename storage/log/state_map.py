"""The state map: from ``(type, state_key)`` to event id, in content-addressed nodes that states share.

A room's state is the *root* (a 20-byte hash, ``b""`` for the empty map) of a tree of nodes. A node's key is
the hash of its bytes and its bytes follow from its contents alone, so equal states have equal roots however
they were reached, and two states are compared by following only the hashes that differ.

There are two levels: a trie over the types, whose values are the types' own tries over state keys. A trie
node is a *leaf* (up to ``LEAF_MAX`` rows) or a *branch* of up to 32 children, chosen by five bits of the
key's hash for each level. A type with few keys has no trie of its own: its rows stand in the types' leaf.

Functions take ``load``, which gives a node's bytes by hash, and write to ``out``, a dictionary of new nodes
that the caller puts into its batch (:func:`put_nodes`). Nodes are stored for each room apart.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from storage.log.append import Batch
from storage.log.catalog import NODES, Table
from storage.log.keys import u64
from storage.log.view import View

Load = Callable[[bytes], bytes]
Nodes = MutableMapping[bytes, bytes]
Cache = MutableMapping[bytes, Any]
"""Decoded nodes by hash, to be shared between calls; the caller bounds it (see ``NodeCache``)."""
Change = tuple[str, str, str | None, str | None]
"""Type, state key, event id on the one side and on the other (``None``: absent)."""

ROOT_SIZE: Final = 20
LEAF_MAX: Final = 16
INLINE_MAX: Final = 4
_BITS: Final = 5
_DEEPEST: Final = 24
"""Levels that the 128-bit key hash feeds; a leaf there may grow beyond LEAF_MAX."""
_LEAF: Final = 0
_BRANCH: Final = 1
_CHILD: Final = struct.Struct(">20sI")

Inline = list[str]
"""Rows of a small type: state key, event id, state key, event id…"""
Rows = dict[str, Any]
"""A leaf: key → value. Values are event ids, or below types an ``Inline`` or a (root, count)."""
Branch = list[tuple[bytes, int] | None]
"""32 children: hash and number of rows below."""

_decode = msgspec.msgpack.decode
_encode = msgspec.msgpack.encode


class MissingNode(Exception):
    """A node that a state refers to is not stored: the room is damaged."""


class NodeCache(dict[bytes, Any]):
    """A cache of decoded nodes that forgets its oldest half when it is full."""

    def __init__(self, limit: int = 20000) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: bytes, value: Any) -> None:
        if len(self) >= self._limit:
            for old in list(self)[: self._limit // 2]:
                del self[old]
        super().__setitem__(key, value)


def loader(view: View | Callable[[Table, bytes], bytes | None], room_nid: int) -> Load:
    """How to get a room's nodes through a view or its ``get``. Loading raises :class:`MissingNode`."""
    prefix = u64(room_nid)
    read = view if callable(view) else view.get

    def load(node: bytes) -> bytes:
        data = read(NODES, prefix + node)
        if data is None:
            raise MissingNode(f"room number {room_nid} lacks state node {node.hex()}")
        return data

    return load


def put_nodes(batch: Batch, room_nid: int, nodes: Mapping[bytes, bytes]) -> None:
    """Put new nodes into a batch."""
    prefix = u64(room_nid)
    for node, data in nodes.items():
        batch.put(NODES, prefix + node, data)


def key_hash(key: str) -> int:
    """The number whose bits choose the way of a key through a trie, lowest five first."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "little")


def walk_order(key: str) -> int:
    """Where a key stands when a trie is walked, four levels deep. Many keys that are set in this order, a part at a
    time, write most nodes once; in another order each part writes nodes all over the trie."""
    number = key_hash(key)
    return (number & 31) << 15 | (number >> 5 & 31) << 10 | (number >> 10 & 31) << 5 | number >> 15 & 31


class StateMap:
    """The states of one room, read through a view (or its ``get``). A writer keeps one for its room.

    Remembers the nodes that :meth:`set` made, so that a batch's next event can build on them before the batch
    is appended.
    """

    __slots__ = ("_cache", "_load", "_recent")

    RECENT = 1000

    def __init__(
        self,
        view: View | Callable[[Table, bytes], bytes | None],
        room_nid: int,
        cache: Cache | None = None,
    ) -> None:
        self._recent: dict[bytes, bytes] = {}
        self._cache = cache
        stored = loader(view, room_nid)
        self._load: Load = _through(stored, self._recent)

    def get(self, root: bytes, type_: str, state_key: str = "") -> str | None:
        """The event id at ``(type, state_key)`` of the state, or ``None``."""
        return get(self._load, root, type_, state_key, self._cache)

    def set(self, root: bytes, changes: Mapping[tuple[str, str], str | None], out: Nodes) -> bytes:
        """The root after ``changes`` (``None`` deletes); its new nodes go to ``out``, to be put into the batch."""
        made: dict[bytes, bytes] = {}
        new_root = set_many(self._load, root, changes, made, self._cache)
        recent = self._recent
        if len(recent) + len(made) > self.RECENT:
            for node in list(recent)[: self.RECENT // 2]:
                del recent[node]
        recent.update(made)
        out.update(made)
        return new_root

    def items(self, root: bytes, type_: str | None = None) -> Iterator[tuple[tuple[str, str], str]]:
        """``((type, state_key), event_id)`` of the whole state or of one type, in no particular order."""
        for name, state_key, event_id in items(self._load, root, type_):
            yield (name, state_key), event_id

    def count(self, root: bytes, type_: str) -> int:
        """How many state keys a type has."""
        return count(self._load, root, type_, self._cache)

    def diff(self, a: bytes, b: bytes) -> Iterator[tuple[tuple[str, str], str | None, str | None]]:
        """``((type, state_key), event id in a, event id in b)`` of all that differs, ``None`` for absent."""
        for name, state_key, old, new in diff(self._load, a, b):
            yield (name, state_key), old, new


# -- reading ---------------------------------------------------------------------------------------------


def get(load: Load, root: bytes, type_: str, state_key: str, cache: Cache | None = None) -> str | None:
    """The event id at ``(type, state_key)``, or ``None``."""
    value = _find(load, root, type_, cache)
    if value is None:
        return None
    if isinstance(value, tuple):
        found: str | None = _find(load, value[0], state_key, cache)
        return found
    for index in range(0, len(value), 2):
        if value[index] == state_key:
            return str(value[index + 1])
    return None


def items(
    load: Load, root: bytes, type_: str | None = None, cache: Cache | None = None
) -> Iterator[tuple[str, str, str]]:
    """``(type, state_key, event_id)`` of the whole state or of one type, in no particular order."""
    if type_ is None:
        for name, value in _rows(load, root, cache):
            for state_key, event_id in _type_rows(load, value, cache):
                yield name, state_key, event_id
        return
    value = _find(load, root, type_, cache)
    if value is not None:
        for state_key, event_id in _type_rows(load, value, cache):
            yield type_, state_key, event_id


def count(load: Load, root: bytes, type_: str, cache: Cache | None = None) -> int:
    """How many state keys a type has, without reading them."""
    value = _find(load, root, type_, cache)
    if value is None:
        return 0
    return int(value[1]) if isinstance(value, tuple) else len(value) // 2


def diff(load: Load, a: bytes, b: bytes, cache: Cache | None = None) -> Iterator[Change]:
    """What differs between two states: ``(type, state_key, event id in a, event id in b)``.

    Takes time proportional to the difference.
    """
    for name, left, right in _diff(load, a, b, 0, cache):
        if isinstance(left, tuple) and isinstance(right, tuple):
            for state_key, old, new in _diff(load, left[0], right[0], 0, cache):
                yield name, state_key, old, new
            continue
        if left is None:
            for state_key, new in _type_rows(load, right, cache):
                yield name, state_key, None, new
            continue
        before = dict(_type_rows(load, left, cache))
        after = dict(_type_rows(load, right, cache)) if right is not None else {}
        for state_key, old, new in _diff_rows(before, after):
            yield name, state_key, old, new


def reachable(load: Load, root: bytes, known: set[bytes]) -> Iterator[bytes]:
    """Hashes of all nodes below ``root`` that are not in ``known`` yet; adds each to ``known`` as it goes.

    Stops at known nodes, whose descendants are taken to be known as well.
    """
    pending = [(root, True)] if root else []
    while pending:
        node, of_types = pending.pop()
        if node in known:
            continue
        known.add(node)
        yield node
        content = _parse(load(node))
        if isinstance(content, list):
            pending += [(child[0], of_types) for child in content if child is not None]
        elif of_types:
            pending += [(value[0], False) for value in content.values() if isinstance(value, tuple)]


# -- writing ---------------------------------------------------------------------------------------------


def set_many(
    load: Load,
    root: bytes,
    changes: Mapping[tuple[str, str], str | None],
    out: Nodes,
    cache: Cache | None = None,
) -> bytes:
    """The root of the state after ``changes`` (``None`` deletes). New nodes are added to ``out``.

    When rows go away, ``out`` may gain a node that the new state does not use (a small trie before it became
    a leaf); the collection of garbage finds it later.

    ``out`` is read as well, so that several calls before the batch is appended build on each other.
    """
    read = _through(load, out)
    by_type: dict[str, dict[str, str | None]] = {}
    for (type_, state_key), event_id in changes.items():
        by_type.setdefault(type_, {})[state_key] = event_id
    new_values = {
        type_: _set_type(read, _find(read, root, type_, cache), rows, out, cache)
        for type_, rows in by_type.items()
    }
    new_root, _ = _set(read, root, new_values, 0, out, cache)
    return new_root


def _through(load: Load, out: Nodes) -> Load:
    def read(node: bytes) -> bytes:
        data = out.get(node)
        return load(node) if data is None else data

    return read


def _set_type(load: Load, value: Any, changes: dict[str, str | None], out: Nodes, cache: Cache | None) -> Any:
    """A type's new value: ``None``, an ``Inline``, or the (root, count) of its own trie."""
    if isinstance(value, tuple):
        root, size = _set(load, value[0], changes, 0, out, cache)
        if size > INLINE_MAX:
            return root, size
        rows = dict(_rows(load, root, cache)) if size else {}
    else:
        rows = dict(_type_rows(load, value, cache)) if value is not None else {}
        for key, event_id in changes.items():
            if event_id is None:
                rows.pop(key, None)
            else:
                rows[key] = event_id
        if len(rows) > INLINE_MAX:
            return _set(load, b"", dict(rows), 0, out, cache)
    return [text for key in sorted(rows) for text in (key, rows[key])] or None


def _set(
    load: Load, node: bytes, changes: Mapping[str, Any], depth: int, out: Nodes, cache: Cache | None
) -> tuple[bytes, int]:
    """The trie at ``node`` after ``changes``: hash and number of rows, ``(b"", 0)`` when empty."""
    content = _open(load, node, cache) if node else {}
    if isinstance(content, dict):
        rows = dict(content)
        for key, value in changes.items():
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        return _build(rows, depth, out)
    children: Branch = list(content)
    for slot, part in _split(changes, depth).items():
        child = children[slot]
        below = _set(load, child[0] if child else b"", part, depth + 1, out, cache)
        children[slot] = below if below[1] else None
    size = sum(child[1] for child in children if child)
    if size > LEAF_MAX:
        return _save(_pack_branch(children), out), size
    collapsed: Rows = {}
    for child in children:
        if child:
            collapsed.update(_rows(load, child[0], cache))
    return _build(collapsed, depth, out)


def _build(rows: Rows, depth: int, out: Nodes) -> tuple[bytes, int]:
    if not rows:
        return b"", 0
    if len(rows) <= LEAF_MAX or depth >= _DEEPEST:
        return _save(_pack_leaf(rows), out), len(rows)
    children: Branch = [None] * 32
    for slot, part in _split(rows, depth).items():
        children[slot] = _build(part, depth + 1, out)
    return _save(_pack_branch(children), out), len(rows)


def _split(rows: Mapping[str, Any], depth: int) -> dict[int, Rows]:
    slots: dict[int, Rows] = {}
    shift = depth * _BITS
    for key, value in rows.items():
        slots.setdefault(key_hash(key) >> shift & 31, {})[key] = value
    return slots


def _save(data: bytes, out: Nodes) -> bytes:
    node = blake2b(data, digest_size=ROOT_SIZE).digest()
    out[node] = data
    return node


# -- node bytes ------------------------------------------------------------------------------------------


def _pack_leaf(rows: Rows) -> bytes:
    """0x00 and a MessagePack array: key, value, key, value… sorted by key; (root, count) as 24 bytes."""
    flat: list[Any] = []
    for key in sorted(rows):
        value = rows[key]
        flat += (key, _CHILD.pack(*value) if isinstance(value, tuple) else value)
    return b"\0" + _encode(flat)


def _pack_branch(children: Branch) -> bytes:
    """0x01, a bitmap u32 (bit n: child n exists) and (hash, count u32) of each child."""
    bitmap = sum(1 << slot for slot, child in enumerate(children) if child)
    return b"".join((b"\1", bitmap.to_bytes(4, "big"), *(_CHILD.pack(*child) for child in children if child)))


def _parse(data: bytes) -> Rows | Branch:
    if data[0] == _LEAF:
        flat = _decode(memoryview(data)[1:])
        rows: Rows = dict(zip(flat[::2], flat[1::2], strict=True))
        for key, value in rows.items():
            if isinstance(value, bytes):
                rows[key] = _CHILD.unpack(value)
        return rows
    if data[0] != _BRANCH:
        raise ValueError("damaged state node")
    bitmap = int.from_bytes(data[1:5], "big")
    children = _CHILD.iter_unpack(memoryview(data)[5:])
    return [next(children) if bitmap >> slot & 1 else None for slot in range(32)]


def _open(load: Load, node: bytes, cache: Cache | None) -> Rows | Branch:
    if cache is None:
        return _parse(load(node))
    content = cache.get(node)
    if content is None:
        content = cache[node] = _parse(load(node))
    return content


def _find(load: Load, root: bytes, key: str, cache: Cache | None) -> Any:
    node = root
    path = -1
    while node:
        content = _open(load, node, cache)
        if isinstance(content, dict):
            return content.get(key)
        if path < 0:
            path = key_hash(key)
        child = content[path & 31]
        path >>= _BITS
        node = child[0] if child else b""
    return None


def _rows(load: Load, node: bytes, cache: Cache | None) -> Iterator[tuple[str, Any]]:
    pending = [node] if node else []
    while pending:
        content = _open(load, pending.pop(), cache)
        if isinstance(content, dict):
            yield from content.items()
        else:
            pending += [child[0] for child in content if child]


def _type_rows(load: Load, value: Any, cache: Cache | None) -> Iterator[tuple[str, str]]:
    if isinstance(value, tuple):
        return _rows(load, value[0], cache)
    return zip(value[::2], value[1::2], strict=True)


def _diff(
    load: Load, a: bytes, b: bytes, depth: int, cache: Cache | None
) -> Iterator[tuple[str, Any, Any]]:
    if a == b:
        return
    if not a:
        for key, new in _rows(load, b, cache):
            yield key, None, new
        return
    left = _open(load, a, cache) if a else {}
    right = _open(load, b, cache) if b else {}
    if isinstance(left, list) and isinstance(right, list):
        for one, other in zip(left, right, strict=True):
            yield from _diff(load, one[0] if one else b"", other[0] if other else b"", depth + 1, cache)
        return
    # One side is a leaf: at most LEAF_MAX rows are common to both.
    before = left if isinstance(left, dict) else dict(_rows(load, a, cache))
    after = right if isinstance(right, dict) else dict(_rows(load, b, cache))
    yield from _diff_rows(before, after)


def _diff_rows(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key, old in before.items():
        new = after.get(key)
        if old != new:
            yield key, old, new
    for key, new in after.items():
        if key not in before:
            yield key, None, new
