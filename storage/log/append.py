"""The write side of the log: batches, positions, group commit, release in order.

Everything but durability happens synchronously on the reactor. A turn fills a :class:`Batch` (each
:meth:`Batch.entry` takes the next position) and hands it to :meth:`Log.append` before the turn ends. All
batches that wait are committed together; afterwards one release advances :attr:`Log.position`, tells the
feed, and fires the Deferreds. So the order of submission is the order of commit, and whoever decides on
:meth:`Log.get` may count on what was submitted before: either it becomes durable first, or both fail.

Positions are never given twice, not even those of ephemeral entries that no disk has seen: META holds a
*lease*, a position that is durable before any above it is given out, and a restart begins behind it.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from storage.log.catalog import LOG, META, TABLES, Table
from storage.log.errors import LogFull, LogUnavailable
from storage.log.keys import MAX_KEY, u64
from storage.log.view import Snapshot, Store

LEASE: Final = 65536
"""How many positions a lease covers. Renewed when half of it is used."""

STALL_SECONDS: Final = 10.0
"""A commit that takes longer than this counts as stalled: the disk may hang for good."""

EPOCH_KEY: Final = b"epoch"
FIRST_EPOCH_KEY: Final = b"first epoch"
INODE_KEY: Final = b"inode"
LEASE_KEY: Final = b"lease"
RUN_KEY: Final = b"run"
"""How many runs of the server have begun, which the tables count too."""
ANNOUNCED_RUN_KEY: Final = b"announced run"
MISMATCH_KEY: Final = b"mismatch accepted"
FORMAT_KEY: Final = b"format"


class Kind(IntEnum):
    """What an entry tells. Numbers are on disk: new kinds go at the end."""

    EVENT = 1
    """An event took its place at the forward end of a room; ``ref`` is its key in EVENTS."""
    RECEIPT = 2
    ACCOUNT_DATA = 3
    TO_DEVICE = 4
    DEVICE_LIST = 5
    TYPING = 6
    """Ephemeral."""
    PRESENCE = 7
    """Ephemeral."""
    KEY_COUNTS = 8
    """Ephemeral: a device's one-time-key counts changed."""
    FEDERATION = 9
    BACKFILL = 10
    """An event was put before the start of a room's log; ``ref`` is its key in EVENTS."""
    REDACTION = 11
    """A stored event was rewritten; ``ref`` is its key in EVENTS."""
    MEMBERSHIP = 12
    """A membership changed without an event of the room's log (remote invite, forget)."""
    ROOM = 13
    """A room was made or entered, and that position is its number in keys; or its state became complete after a fast join."""


class Entry(msgspec.Struct):
    """One entry of the commit log. ``note`` lives in memory only, for the feed."""

    position: int
    kind: Kind
    room_id: str = ""
    user_id: str = ""
    device_id: str = ""
    ref: bytes = b""
    note: object = None


ENTRY_HEADER = struct.Struct(">BHHH")
"""Of an entry: kind, and the lengths of room, user and device id; the room id follows."""
_KINDS = {int(kind): kind for kind in Kind}


def pack_entry(kind: int, room_id: str, user_id: str, device_id: str, ref: bytes) -> bytes:
    """An entry's value in LOG: kind u8, three lengths u16, the three strings in utf-8, then ``ref``."""
    room, user, device = room_id.encode(), user_id.encode(), device_id.encode()
    return ENTRY_HEADER.pack(kind, len(room), len(user), len(device)) + room + user + device + ref


def unpack_entry(position: int, data: bytes) -> Entry:
    """The inverse of :func:`pack_entry`. Raises ``ValueError`` on damaged data."""
    try:
        kind, room, user, device = ENTRY_HEADER.unpack_from(data)
        user += room + ENTRY_HEADER.size
        room += ENTRY_HEADER.size
        device += user
        if device > len(data):
            raise ValueError("entry shorter than its lengths")
        return Entry(
            position,
            _KINDS[kind],
            data[ENTRY_HEADER.size : room].decode(),
            data[room:user].decode(),
            data[user:device].decode(),
            data[device:],
        )
    except (struct.error, KeyError) as error:
        raise ValueError(f"damaged log entry at position {position}") from error


class Batch:
    """What one decision writes, all or nothing. Fill and append it within one turn of the reactor."""

    __slots__ = ("_log", "entries", "puts", "submitted")

    def __init__(self, log: "Log") -> None:
        self._log = log
        self.entries: list[Entry] = []
        self.puts: dict[int, dict[bytes, bytes | None]] = {}
        self.submitted = False

    def entry(
        self,
        kind: Kind,
        *,
        room_id: str = "",
        user_id: str = "",
        device_id: str = "",
        ref: bytes = b"",
        note: object = None,
        durable: bool = True,
    ) -> int:
        """Take the next position for a new entry of the log and return it.

        ``durable=False``: the entry is released with the batch but not written to LOG.
        """
        position = self._log._take(self)
        self.entries.append(Entry(position, kind, room_id, user_id, device_id, ref, note))
        if durable:
            self.put(LOG, u64(position), pack_entry(kind, room_id, user_id, device_id, ref))
        return position

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Write a row. Raises ``ValueError`` for a key that no store takes."""
        if not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"key of {len(key)} bytes in {table.name}")
        rows = self.puts.get(table.number)
        if rows is None:
            self.puts[table.number] = {key: value}
        else:
            rows[key] = value

    def delete(self, table: Table, key: bytes) -> None:
        """Delete a row; one that does not exist is fine."""
        if not 0 < len(key) <= MAX_KEY:
            raise ValueError(f"key of {len(key)} bytes in {table.name}")
        self.puts.setdefault(table.number, {})[key] = None

    def get(self, table: Table, key: bytes) -> bytes | None:
        """What ``key`` holds once this batch is appended: its own puts, else the newest submitted value."""
        rows = self.puts.get(table.number)
        if rows is not None and key in rows:
            return rows[key]
        return self._log.get(table, key)


class _Group:
    """The batches that one commit carries."""

    __slots__ = ("entries", "puts", "upto", "waiters")

    def __init__(self) -> None:
        self.puts: dict[int, dict[bytes, bytes | None]] = {}
        self.entries: list[Entry] = []
        self.waiters: list[tuple[Deferred[int], int]] = []
        self.upto = 0


def _ignore_release(position: int, entries: list[Entry]) -> None:
    """Nobody listens yet."""


def _ignore_failure(error: BaseException) -> None:
    """Nobody listens yet."""


def _ignore_stall(stalled: bool) -> None:
    """Nobody listens yet."""


class Log:
    """The commit log over a store of bytes. See the module for the order in which things happen.

    ``epoch`` is part of every sync token, and another one after a restore; ``first_epoch`` is the one that the log was
    made with and names it for good; ``position`` is the last position that is durable and released.
    Set ``on_release`` (the feed) and ``on_failure`` (drop caches, report unhealthy, exit) after making it.
    ``failed`` is the storage error after which the log refuses appends, else ``None``. ``stalled``: a commit has been
    under way for longer than `STALL_SECONDS`; ``on_stall`` hears when that begins and ends. What waits may still become
    durable, so the log goes on waiting: who has to answer in time answers that it is not known yet.
    """

    def __init__(
        self, store: Store, clock: IReactorTime, epoch: str, position: int, lease: int, first_epoch: str = ""
    ) -> None:
        self.epoch = epoch
        self.first_epoch = first_epoch or epoch
        self.position = position
        self.failed: BaseException | None = None
        self.closed = False
        self.on_release: Callable[[int, list[Entry]], None] = _ignore_release
        self.on_failure: Callable[[BaseException], None] = _ignore_failure
        self.on_stall: Callable[[bool], None] = _ignore_stall
        self.stalled = False
        self.groups = 0
        """Commits made since the start (for metrics)."""
        self._store = store
        self._clock: Any = clock
        self._next = position + 1
        self._lease = lease
        self._flushed = position
        self._waiting = _Group()
        self._flight: _Group | None = None
        self._flight_since = 0.0
        self._watched = False
        self._open: Batch | None = None
        self._scheduled = False
        self._releases: list[_Group] = []
        self._releasing = False
        self._idle: list[Deferred[None]] = []
        self._report = Logger(namespace="storage.log")

    # -- writing -----------------------------------------------------------------------------------------

    def begin(self) -> Batch:
        """A batch to fill and append within this turn."""
        return Batch(self)

    def append(self, batch: Batch) -> "Deferred[int]":
        """Submit a batch. Fires with its last position when it is durable and released.

        Visible to :meth:`get` at once. Fails with :class:`LogUnavailable` when it was not made durable.
        Raises ``RuntimeError`` when the batch was appended before or took positions in an earlier turn.
        """
        if self.failed is not None or self.closed:
            return fail(LogUnavailable("the log takes no more appends"))
        if batch.submitted:
            raise RuntimeError("batch appended twice")
        entries = batch.entries
        if entries and entries[0].position <= self._flushed:
            raise RuntimeError("batch kept over a turn of the reactor")
        batch.submitted = True
        if self._open is batch:
            self._open = None
        group = self._waiting
        group.entries += entries
        for number, rows in batch.puts.items():
            known = group.puts.get(number)
            if known is None:
                group.puts[number] = rows
            else:
                known.update(rows)
        # A batch is not used after this, so that its dicts may serve as the group's.
        batch.puts = {}
        done: Deferred[int] = Deferred()
        group.waiters.append((done, entries[-1].position if entries else 0))
        self._schedule()
        return done

    def append_ephemeral(
        self, kind: Kind, *, room_id: str = "", user_id: str = "", device_id: str = "", note: object = None
    ) -> int:
        """Give a position to something that is not stored (typing, presence) and release it in order.

        Released before this returns when nothing is waiting to be committed, else with its neighbours.
        Raises :class:`LogUnavailable` when the log has failed or is closed.
        """
        if self.failed is not None or self.closed:
            raise LogUnavailable("the log takes no more appends")
        position = self._next
        self._next = position + 1
        group = self._waiting
        group.entries.append(Entry(position, kind, room_id, user_id, device_id, b"", note))
        idle = self._flight is None and self._open is None and len(group.entries) == 1 and not group.waiters
        if idle and position <= self._lease - LEASE // 2:
            self._waiting = _Group()
            group.upto = self._flushed = position
            self._release(group)
            self._settle()
        else:
            self._schedule()
        return position

    def _take(self, batch: Batch) -> int:
        position = self._next
        self._next = position + 1
        self._open = batch
        return position

    # -- reading -----------------------------------------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The newest submitted value: of batches not yet durable, else the durable one."""
        rows = self._waiting.puts.get(table.number)
        if rows is not None and key in rows:
            return rows[key]
        if self._flight is not None:
            rows = self._flight.puts.get(table.number)
            if rows is not None and key in rows:
                return rows[key]
        return self._store.get(table, key)

    def snapshot(self) -> Snapshot:
        """The durable data exactly at :attr:`position`, to be closed within this turn (use ``with``)."""
        return self._store.snapshot()

    # -- committing --------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # Waiting for the end of the turn lets every request of one poll share a commit.
        if not self._scheduled and self._flight is None:
            self._scheduled = True
            self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self._flight is not None or self.failed is not None:
            return
        group, self._waiting = self._waiting, _Group()
        self._open = None
        group.upto = self._flushed = self._next - 1
        if group.upto > self._lease - LEASE // 2:
            group.puts.setdefault(META.number, {})[LEASE_KEY] = u64(group.upto + LEASE)
        if group.puts:
            self._flight = group
            self._flight_since = self._clock.seconds()
            self.groups += 1
            if not self._watched:
                self._watched = True
                self._clock.callLater(STALL_SECONDS, self._watch)
            self._store.commit(group.puts, self._committed)
        else:
            self._release(group)
            self._settle()

    def _watch(self) -> None:
        """One timer for many commits: it looks at the one that is under way, and is set again while there are any."""
        self._watched = False
        if self._flight is None:
            return
        left = self._flight_since + STALL_SECONDS - self._clock.seconds()
        if left > 0:
            self._watched = True
            self._clock.callLater(left, self._watch)
            return
        self.stalled = True
        self._report.critical(
            "a commit has been under way for {seconds:g} seconds: the disk of the log does not answer. Writes are "
            "refused until it does; the commit itself may still succeed",
            seconds=STALL_SECONDS,
        )
        self.on_stall(True)
        if self.closed:
            self._tell_idle()

    def _committed(self, error: BaseException | None) -> None:
        group, self._flight = self._flight, None
        assert group is not None
        if self.stalled:
            self.stalled = False
            seconds = self._clock.seconds() - self._flight_since
            self._report.warn("the disk of the log has answered, after {seconds:.0f} seconds", seconds=seconds)
            self.on_stall(False)
        if error is not None:
            self._fail(group, error)
            return
        lease = group.puts.get(META.number, {}).get(LEASE_KEY)
        if lease is not None:
            self._lease = int.from_bytes(lease, "big")
        # Order matters: positions of the next group must not reach the feed before these.
        self._release(group)
        self._settle()

    def _settle(self) -> None:
        if self._waiting.waiters or self._waiting.entries:
            self._schedule()
        elif self._idle and self._flight is None and not self._releasing:
            self._tell_idle()

    def _release(self, group: _Group) -> None:
        """Advance, tell the feed, answer. What callbacks release meanwhile comes after, never inside."""
        self._releases.append(group)
        if self._releasing:
            return
        self._releasing = True
        try:
            while self._releases:
                self._release_one(self._releases.pop(0))
        finally:
            self._releasing = False

    def _release_one(self, group: _Group) -> None:
        entries = group.entries
        self.position = group.upto
        if entries:
            # Batches filled alternately in one turn are submitted in another order than numbered.
            entries.sort(key=_by_position)
            try:
                self.on_release(group.upto, entries)
            except Exception:
                self._report.failure("the feed failed on a release")
        for done, position in group.waiters:
            done.callback(position or group.upto)

    def _fail(self, group: _Group, error: BaseException) -> None:
        full = isinstance(error, LogFull)
        if not full:
            self.failed = error
        self._report.error("commit failed, {full}: {error!r}", full=full, error=error)
        waiters = group.waiters + self._waiting.waiters
        self._waiting = _Group()
        self._open = None
        self._flushed = self._next - 1
        self.on_failure(error)
        for done, _ in waiters:
            answer = LogFull("map full") if full else LogUnavailable(f"commit failed: {error!r}")
            answer.__cause__ = error
            done.errback(answer)
        self._tell_idle()

    # -- stopping ----------------------------------------------------------------------------------------

    def flushed(self) -> "Deferred[None]":
        """Fires when nothing is waiting and nothing is being committed."""
        busy = self._flight is not None or self._releasing
        if not busy and not self._waiting.waiters and not self._waiting.entries:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._idle.append(waiter)
        return waiter

    def _tell_idle(self) -> None:
        idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.callback(None)

    async def close(self) -> None:
        """Refuse appends, let the last ones become durable, shorten the lease, close the store.

        Does not wait for a disk that has stalled: the next start finds what it finds after a crash.
        """
        if self.closed:
            return
        self.closed = True
        if not self.stalled:
            await self.flushed()
        if self.stalled:
            return
        if self.failed is None:
            done: Deferred[BaseException | None] = Deferred()
            self._store.commit({META.number: {LEASE_KEY: u64(self._next - 1)}}, done.callback)
            await done
        self._store.close()


def _by_position(entry: Entry) -> int:
    return entry.position


assert all(table.number == index for index, table in enumerate(TABLES)), "catalogue out of order"
