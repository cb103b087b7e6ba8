"""Relations and threads: which events relate to an event, and a room's threads by their latest reply.

Storage does not parse events; the writer passes the extract (:class:`Relation`) along with the event.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from storage.log.append import Batch
from storage.log.catalog import RELATIONS, THREAD_ROOTS, THREADS
from storage.log.keys import BIAS, after_prefix, from_seq_key, part, seq_key, u64
from storage.log.view import Snapshot, View

THREAD: Final = "m.thread"


class Relation(msgspec.Struct, frozen=True):
    """The extract of ``m.relates_to`` that is indexed, with the child's own ``type``."""

    parent: str
    rel_type: str
    type: str
    key: str = ""
    """``key`` of an annotation."""


class Child(msgspec.Struct, array_like=True, frozen=True):
    """A row of RELATIONS."""

    event_id: str
    sender: str
    rel_type: str
    type: str
    key: str
    room_nid: int
    seq: int


class Thread(msgspec.Struct, array_like=True):
    """A row of THREAD_ROOTS: the summary of one thread."""

    root: str
    last_seq: int
    count: int


_child_encoder = msgspec.msgpack.Encoder()
_child_decoder = msgspec.msgpack.Decoder(Child)
_thread_decoder = msgspec.msgpack.Decoder(Thread)


def put_relation(
    batch: Batch, room_nid: int, seq: int, event_id: str, sender: str, relation: Relation
) -> None:
    """Index a child. Called by ``put_event``; a child in another room than its parent is stored as given."""
    key = part(relation.parent) + part(relation.rel_type) + u64(seq + BIAS)
    known = batch.get(RELATIONS, key) is not None
    child = Child(event_id, sender, relation.rel_type, relation.type, relation.key, room_nid, seq)
    batch.put(RELATIONS, key, _child_encoder.encode(child))
    if relation.rel_type == THREAD and not known:
        thread = thread_of(batch, relation.parent)
        if thread is None:
            _put_thread(batch, room_nid, Thread(relation.parent, seq, 1))
            return
        thread.count += 1
        if seq > thread.last_seq:
            batch.delete(THREADS, seq_key(room_nid, thread.last_seq))
            thread.last_seq = seq
        _put_thread(batch, room_nid, thread)


def drop_relation(batch: Batch, room_nid: int, seq: int, relation: Relation) -> None:
    """Forget a child that was redacted. The thread keeps its place in the list, with one reply less."""
    key = part(relation.parent) + part(relation.rel_type) + u64(seq + BIAS)
    if batch.get(RELATIONS, key) is None:
        return
    batch.delete(RELATIONS, key)
    if relation.rel_type == THREAD:
        thread = thread_of(batch, relation.parent)
        if thread is not None:
            thread.count -= 1
            if thread.count > 0:
                _put_thread(batch, room_nid, thread)
            else:
                batch.delete(THREADS, seq_key(room_nid, thread.last_seq))
                batch.delete(THREAD_ROOTS, part(relation.parent))


def _put_thread(batch: Batch, room_nid: int, thread: Thread) -> None:
    batch.put(THREADS, seq_key(room_nid, thread.last_seq), thread.root.encode())
    batch.put(THREAD_ROOTS, part(thread.root), _child_encoder.encode(thread))


def thread_of(view: View, root: str) -> Thread | None:
    """The summary of the thread below event ``root``."""
    data = view.get(THREAD_ROOTS, part(root))
    return None if data is None else _thread_decoder.decode(data)


def children(
    snapshot: Snapshot, parent: str, rel_type: str | None = None, *, reverse: bool = False
) -> Iterator[Child]:
    """Events that relate to ``parent``: by relation type, then in the room's order."""
    prefix = part(parent) + (b"" if rel_type is None else part(rel_type))
    for _, data in snapshot.range(RELATIONS, prefix, after_prefix(prefix), reverse=reverse):
        yield _child_decoder.decode(data)


def threads(snapshot: Snapshot, room_nid: int, before_seq: int) -> Iterator[tuple[int, str]]:
    """``(seq of the latest reply, root id)`` of a room's threads, latest first, below ``before_seq``."""
    stop = seq_key(room_nid, before_seq)
    for key, root in snapshot.range(THREADS, u64(room_nid), stop, reverse=True):
        yield from_seq_key(key)[1], root.decode()
