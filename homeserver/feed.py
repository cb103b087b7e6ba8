"""The feed: how far the log is visible, what came last, and who waits for it.

The log calls ``release`` with every group of entries that became durable, in the order of their positions. The feed
remembers the newest entries (a *ring*), the last position of each room, user and device, tells the followers, and
then wakes those whom an entry concerns: members of its room, its user, its device.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.deadlines import Deadlines
from storage.log.append import Entry, Kind
from storage.log.receipts import PRIVATE_REF as PRIVATE

WAKE_CHUNK = 64
"""How many waiters are woken in one turn of the reactor."""

Follower = Callable[[Sequence[Entry]], None]


class Audience(Protocol):
    """Who is joined where; the membership cache, which must already know of the entries being released."""

    def joined_users(self, room_id: str) -> "set[str]":
        """The users joined to a room: a live set, not to be changed."""

    def joined_rooms(self, user_id: str) -> "Iterable[str]":
        """The rooms that a user is joined to."""


class Waiter(Protocol):
    """One wait of one device for anything that concerns it. The feed calls one of the two, once."""

    user_id: str
    device_id: str | None
    deadline: float
    """When the wait ends at the latest (seconds of the feed's clock)."""

    def woken(self) -> None:
        """Something came that may concern the device (it may still turn out to be filtered away)."""

    def expired(self) -> None:
        """Nothing that was released until now concerns the device."""


class _Wait:
    """A wait that fires a Deferred."""

    __slots__ = ("_feed", "deadline", "deferred", "device_id", "user_id")

    def __init__(self, feed: "Feed", user_id: str, device_id: str | None, deadline: float) -> None:
        self.user_id = user_id
        self.device_id = device_id
        self.deadline = deadline
        self.deferred: Deferred[bool] = Deferred(self._cancelled)
        self._feed = feed

    def _cancelled(self, _: Deferred[bool]) -> None:
        self._feed.remove(self)

    def woken(self) -> None:
        if not self.deferred.called:  # it may have been cancelled when it was about to be woken
            self.deferred.callback(True)

    def expired(self) -> None:
        self.deferred.callback(False)


class Feed:
    """Positions, recent entries and wake-ups. Belongs to the reactor thread."""

    def __init__(self, clock: IReactorTime, audience: Audience, position: int = 0, ring_size: int = 8192) -> None:
        """``position`` is the newest released position when the server starts."""
        self._clock = clock
        self._audience = audience
        self._ring: list[Entry] = []
        self._ring_size = ring_size
        self._floor = position
        self._followers: list[Follower] = []
        self._waiting: dict[str, set[Waiter]] = {}
        self._deadlines = Deadlines(clock, self._expire)
        self._log = Logger()
        self.start_position = position
        self.position = position
        self.room_events: dict[str, int] = {}
        self.room_receipts: dict[str, int] = {}
        self.room_typing: dict[str, int] = {}
        self.user_account_data: dict[str, int] = {}
        self.user_presence: dict[str, int] = {}
        self.last_device_list = position
        self.inboxes: dict[tuple[str, str], int] = {}

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` with every group of released entries, before anybody waiting is woken.

        Followers are called in the order in which they were added; one that raises does not stop the others.
        """
        self._followers.append(follower)

    def release(self, position: int, entries: Sequence[Entry]) -> None:
        """Make everything up to ``position`` visible. Set as the log's ``on_release``."""
        self._ring.extend(entries)
        if len(self._ring) > 2 * self._ring_size:
            self._floor = self._ring[-self._ring_size - 1].position
            del self._ring[: -self._ring_size]
        self.position = position
        for entry in entries:
            self._note(entry)
        for follower in self._followers:
            try:
                follower(entries)
            except Exception:
                self._log.failure("A follower failed on positions up to {position}", position=position)
        if self._waiting:
            self._wake(entries)

    def entries_after(self, position: int) -> Sequence[Entry] | None:
        """The released entries after ``position``, oldest first; None when the ring does not reach back so far."""
        if position < self._floor:
            return None
        return self._ring[bisect_right(self._ring, position, key=_position) :]

    def wait(self, user_id: str, device_id: str | None, after: int, timeout: float) -> Deferred[bool]:
        """Wait until something after position ``after`` may concern this device.

        Fires with True when something does (it may still turn out to be filtered away) and with False after ``timeout``
        seconds. Cancelling it ends the wait.
        """
        if self.position > after:
            return succeed(True)
        wait = _Wait(self, user_id, device_id, self._clock.seconds() + max(0.0, timeout))
        self.add(wait)
        return wait.deferred

    def add(self, waiter: Waiter) -> None:
        """Wake this one when something after the present position may concern it."""
        waiters = self._waiting.get(waiter.user_id)
        if waiters is None:
            self._waiting[waiter.user_id] = {waiter}
        else:
            waiters.add(waiter)
        self._deadlines.add(waiter)

    def remove(self, waiter: Waiter) -> bool:
        """End a wait, nothing is called; False when it had ended before."""
        waiters = self._waiting.get(waiter.user_id)
        if waiters is None or waiter not in waiters:
            return False
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[waiter.user_id]
        self._deadlines.remove(waiter)
        return True

    @property
    def waiting(self) -> int:
        """How many devices are waiting."""
        return sum(map(len, self._waiting.values()))

    def _note(self, entry: Entry) -> None:
        kind, position = entry.kind, entry.position
        if kind == Kind.EVENT:
            self.room_events[entry.room_id] = position
        elif kind == Kind.RECEIPT:
            self.room_receipts[entry.room_id] = position
        elif kind == Kind.TYPING:
            self.room_typing[entry.room_id] = position
        elif kind == Kind.ACCOUNT_DATA:
            self.user_account_data[entry.user_id] = position
        elif kind == Kind.PRESENCE:
            self.user_presence[entry.user_id] = position
        elif kind == Kind.DEVICE_LIST:
            self.last_device_list = position
        elif kind == Kind.TO_DEVICE:
            self.inboxes[entry.user_id, entry.device_id] = position

    def _wake(self, entries: Sequence[Entry]) -> None:
        woken: dict[Waiter, None] = {}
        waiting = self._waiting
        for entry in entries:
            device_id = entry.device_id if entry.kind in _DEVICE_KINDS else ""
            for user_id in self.concerned(entry, waiting.keys()):
                for waiter in waiting.get(user_id, ()):
                    if not device_id or waiter.device_id == device_id:
                        woken[waiter] = None
        # All leave the list now: one whose turn comes later must not be told meanwhile that nothing came.
        self._fire([waiter for waiter in woken if self.remove(waiter)])

    def concerned(self, entry: Entry, candidates: Set[str]) -> Iterable[str]:
        """Which of the candidates (a set of user ids, or a dict's keys) an entry concerns."""
        kind = entry.kind
        if kind == Kind.EVENT:
            users = self._audience.joined_users(entry.room_id) & candidates
            target = getattr(entry.note, "target", None)
            if target is not None and target in candidates:
                users.add(target)
            return users
        if kind == Kind.TYPING or (kind == Kind.RECEIPT and entry.ref != PRIVATE):
            return self._audience.joined_users(entry.room_id) & candidates
        if kind in _SHARED_KINDS and not entry.ref:
            return self.sharing(entry.user_id, candidates)
        return (entry.user_id,)

    def sharing(self, user_id: str, candidates: Set[str]) -> set[str]:
        """Which of the candidates share a room with the user; the user too."""
        users: set[str] = {user_id}
        for room_id in self._audience.joined_rooms(user_id):
            users |= self._audience.joined_users(room_id) & candidates
        return users

    def _fire(self, waiters: list[Waiter]) -> None:
        for waiter in waiters[:WAKE_CHUNK]:
            waiter.woken()
        if len(waiters) > WAKE_CHUNK:
            self._clock.callLater(0, self._fire, waiters[WAKE_CHUNK:])

    def _expire(self, waiter: Waiter) -> None:
        if self.remove(waiter):
            waiter.expired()


_DEVICE_KINDS = frozenset({Kind.TO_DEVICE, Kind.KEY_COUNTS})
_SHARED_KINDS = frozenset({Kind.PRESENCE, Kind.DEVICE_LIST})


def _position(entry: Entry) -> int:
    return entry.position
