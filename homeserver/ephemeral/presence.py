"""Who is online: merged from a user's devices, ended by timers, announced only when others would notice.

Specification: Client-Server API, module "Presence". A device is *online* while it syncs (and a little longer), a
user is
as present as their most present device, and a user without any activity for a while is *unavailable*. States live
in memory; what is worth keeping over a restart, `homeserver.ephemeral.presence_memory` keeps.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from homeserver.ephemeral.remote_presence import RemotePresence

OFFLINE = "offline"
UNAVAILABLE = "unavailable"
ONLINE = "online"
_RANK = {OFFLINE: 0, UNAVAILABLE: 1, ONLINE: 2}

SYNC_GRACE = 30.0
"""Seconds for which a device counts as present after its last sync ended."""
IDLE_AFTER = 300.0
"""Seconds without activity after which an online user becomes unavailable."""
ACTIVE_FOR = 60.0
"""Seconds for which an activity makes a user ``currently_active``; also how often activity alone is announced."""
MAX_USERS = 100_000
MAX_STATUS_BYTES = 4096
_NEVER = float("-inf")


@dataclass(slots=True)
class _Device:
    state: str
    syncs: int = 0
    until: float = 0.0


@dataclass(slots=True)
class _User:
    devices: dict[str, _Device] = field(default_factory=dict)
    active: float = _NEVER
    status: str | None = None
    state: str = OFFLINE
    announced_active: bool = False
    due: float = 0.0


class Presence:
    """The presence of local users, and of those whom ``remote`` was told of. ``announce(user_id)`` gives a change its
    position in the log.

    Times are seconds of the given clock. ``tick`` work is driven by one timer for the earliest due user.
    """

    def __init__(self, clock: IReactorTime, announce: Callable[[str], None], enabled: bool = True) -> None:
        self._clock = clock
        self._announce = announce
        self.enabled = enabled
        self._users: dict[str, _User] = {}
        self._due: list[tuple[float, str]] = []
        self._timer: IDelayedCall | None = None
        self._active: set[str] = set()
        """Who did something since `take_active`."""
        self.remote = RemotePresence(clock, announce)

    def sync_started(self, user_id: str, device_id: str, state: str = ONLINE) -> None:
        """A device begins to sync with ``set_presence=state``; every call needs its ``sync_ended``.

        Following the specification, ``offline`` leaves the device's presence as it is.
        """
        if not self.enabled or state == OFFLINE:
            return
        user = self._user(user_id)
        if user is None:
            return
        device = user.devices.get(device_id)
        if device is None:
            device = user.devices[device_id] = _Device(state)
        if user.state == OFFLINE or (state == ONLINE and device.state != ONLINE):
            self._note_active(user_id, user)
        device.state = state
        device.syncs += 1
        self._settle(user_id, user)

    def sync_ended(self, user_id: str, device_id: str, state: str = ONLINE) -> None:
        """A device's sync has ended; it stays present for a grace period."""
        user = self._users.get(user_id)
        device = user.devices.get(device_id) if user is not None else None
        if user is None or device is None or state == OFFLINE:
            return
        device.syncs = max(0, device.syncs - 1)
        device.until = self._clock.seconds() + SYNC_GRACE
        self._schedule(user_id, user)

    def active(self, user_id: str) -> None:
        """A user did something (sent, read, typed)."""
        user = self._users.get(user_id)
        if not self.enabled or user is None:
            return
        self._note_active(user_id, user)
        if user.state != ONLINE or not user.announced_active:
            self._settle(user_id, user)

    def take_active(self) -> set[str]:
        """Who did something since this was last called."""
        active, self._active = self._active, set()
        return active

    def set(self, user_id: str, device_id: str, state: str, status: str | None) -> bool:
        """A client sets the user's presence; counts as activity. ``status`` None takes the message away.

        Returns whether the status message is another one now.
        """
        if not self.enabled:
            return False
        user = self._user(user_id)
        if user is None:
            return False
        now = self._note_active(user_id, user)
        changed_status = user.status != status
        user.status = status
        if state == OFFLINE:
            user.devices.pop(device_id, None)
        else:
            device = user.devices.setdefault(device_id, _Device(state))
            device.state = state
            device.until = max(device.until, now + SYNC_GRACE)
        self._settle(user_id, user, force=changed_status)
        return changed_status

    def restore(self, user_id: str, active: float | None, status: str | None) -> None:
        """Put back what was `kept` before a restart."""
        user = self._user(user_id)
        if user is not None:
            user.active = _NEVER if active is None else active
            user.status = status

    def kept(self, user_id: str) -> tuple[float | None, str | None]:
        """What a restart is to leave of a user: when they were last active (None: never), their status message."""
        user = self._users.get(user_id)
        if user is None:
            return None, None
        return (None if user.active == _NEVER else user.active), user.status

    def device_gone(self, user_id: str, device_id: str) -> None:
        """A device was logged out."""
        user = self._users.get(user_id)
        if user is not None and user.devices.pop(device_id, None) is not None:
            self._settle(user_id, user)

    def forget(self, user_id: str) -> None:
        """A user is gone for good; others see them offline."""
        user = self._users.pop(user_id, None)
        self._active.discard(user_id)
        if user is not None and (user.state != OFFLINE or user.status is not None):
            self._announce(user_id)

    def known(self, user_id: str) -> bool:
        """Whether anything but "never seen" is known of a user."""
        return user_id in self._users or self.remote.known(user_id)

    def is_present(self, user_id: str) -> bool:
        """Whether a user of this server is not offline."""
        user = self._users.get(user_id)
        return user is not None and user.state != OFFLINE

    def present(self) -> Iterable[str]:
        """Users of this server who are not offline."""
        return filter(self.is_present, self._users)

    def content(self, user_id: str) -> dict[str, Any]:
        """The presence of a user: ``presence`` and, when known, ``last_active_ago`` (ms), ``currently_active``,
        ``status_msg``."""
        user = self._users.get(user_id) if self.enabled else None
        if user is None:
            return self.remote.content(user_id)
        content: dict[str, Any] = {"presence": user.state}
        ago = self._clock.seconds() - user.active
        if user.active != _NEVER:
            content["last_active_ago"] = max(0, int(ago * 1000))
        if user.state == ONLINE:
            content["currently_active"] = ago < ACTIVE_FOR
        if user.status is not None:
            content["status_msg"] = user.status
        return content

    def stop(self) -> None:
        """Forget the timers, at the end of the server."""
        self.remote.stop()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _user(self, user_id: str) -> _User | None:
        user = self._users.get(user_id)
        if user is None and len(self._users) < MAX_USERS:
            user = self._users[user_id] = _User()
        return user

    def _note_active(self, user_id: str, user: _User) -> float:
        user.active = self._clock.seconds()
        self._active.add(user_id)
        return user.active

    def _state(self, user: _User, now: float) -> str:
        best = OFFLINE
        for device_id, device in list(user.devices.items()):
            if not device.syncs and device.until <= now:
                del user.devices[device_id]
            elif _RANK[device.state] > _RANK[best]:
                best = device.state
        return UNAVAILABLE if best == ONLINE and now - user.active >= IDLE_AFTER else best

    def _settle(self, user_id: str, user: _User, force: bool = False) -> None:
        now = self._clock.seconds()
        state = self._state(user, now)
        active = state == ONLINE and now - user.active < ACTIVE_FOR
        if force or state != user.state or active != user.announced_active:
            user.state, user.announced_active = state, active
            self._announce(user_id)
        self._schedule(user_id, user)

    def _schedule(self, user_id: str, user: _User) -> None:
        """Put the user into the heap for the next moment at which their presence may change by itself."""
        due = min((device.until for device in user.devices.values() if not device.syncs), default=float("inf"))
        if user.state == ONLINE:
            due = min(due, user.active + (ACTIVE_FOR if user.announced_active else IDLE_AFTER))
        if due == float("inf") or (user.due and user.due <= due):
            return
        # Never in the past: rounding must not make a timer fire without end.
        due = max(due, self._clock.seconds() + 0.05)
        user.due = due
        heappush(self._due, (due, user_id))
        self._arm()

    def _arm(self) -> None:
        if not self._due:
            return
        delay = max(0.0, self._due[0][0] - self._clock.seconds())
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(delay, self._tick)
        elif self._timer.getTime() > self._due[0][0]:
            self._timer.reset(delay)

    def _tick(self) -> None:
        now = self._clock.seconds()
        self._timer = None
        while self._due and self._due[0][0] <= now:
            due, user_id = heappop(self._due)
            user = self._users.get(user_id)
            if user is not None and user.due == due:
                user.due = 0.0
                self._settle(user_id, user)
        self._arm()
