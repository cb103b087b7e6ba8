"""The presence of other servers' users, as their servers say it: in memory, and over when the server falls silent.

Specification: Server-Server API, "Presence". Servers say again who is present well within half an hour.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

SILENCE = 1800.0
"""Seconds after which a user of whom nothing was heard is offline."""
MAX_USERS = 100_000
EARLY = 60.0
"""Seconds for which the presence of a stranger is kept: it may come before the room that is shared."""
MAX_EARLY = 1_000
CHECK_EVERY = 30.0

OFFLINE = "offline"
ONLINE = "online"


@dataclass(slots=True)
class _User:
    state: str
    active: float | None
    active_now: bool
    status: str | None
    until: float


class RemotePresence:
    """Who of the others is online. ``announce(user_id)`` gives a change its position in the log.

    Set ``shares``: whether a user shares a room with us. Whoever may see a user's presence is decided by the reader.
    """

    def __init__(self, clock: IReactorTime, announce: Callable[[str], None]) -> None:
        self._clock = clock
        self._announce = announce
        self.shares: Callable[[str], bool] = lambda user_id: False
        self._users: OrderedDict[str, _User] = OrderedDict()
        self._early: OrderedDict[str, _User] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def update(
        self, user_id: str, state: str, last_active_ago: int | None, currently_active: bool, status: str | None
    ) -> None:
        """What a user's server says; ``last_active_ago`` in milliseconds."""
        now = self._clock.seconds()
        active = None if last_active_ago is None else now - last_active_ago / 1000
        user = _User(state, active, currently_active and state == ONLINE, status, now + SILENCE)
        before = self._users.pop(user_id, None) or self._early.pop(user_id, None)
        if self.shares(user_id):
            self._users[user_id] = user
            if len(self._users) > MAX_USERS:
                self._users.popitem(last=False)
            if before is None or _shown(before) != _shown(user):
                self._announce(user_id)
        else:
            user.until = now + EARLY
            self._early[user_id] = user
            if len(self._early) > MAX_EARLY:
                self._early.popitem(last=False)
        self._arm()

    def known(self, user_id: str) -> bool:
        """Whether their server told us of a user lately."""
        return user_id in self._users or user_id in self._early

    def content(self, user_id: str) -> dict[str, Any]:
        """As of a local user: ``presence``, ``last_active_ago``, ``currently_active``, ``status_msg``."""
        user = self._users.get(user_id) or self._early.get(user_id)
        if user is None:
            return {"presence": OFFLINE}
        content: dict[str, Any] = {"presence": user.state}
        if user.active is not None:
            content["last_active_ago"] = max(0, int((self._clock.seconds() - user.active) * 1000))
        if user.state == ONLINE:
            content["currently_active"] = user.active_now
        if user.status is not None:
            content["status_msg"] = user.status
        return content

    def stop(self) -> None:
        """Forget the timer, at the end of the server."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None or not self._timer.active():
            self._timer = self._clock.callLater(CHECK_EVERY, self._check)

    def _check(self) -> None:
        now = self._clock.seconds()
        while self._early and next(iter(self._early.values())).until <= now:
            user_id, user = self._early.popitem(last=False)
            if self.shares(user_id):
                user.until = now + SILENCE - EARLY
                self._users[user_id] = user
        while self._users and next(iter(self._users.values())).until <= now:
            user_id, user = self._users.popitem(last=False)
            if user.state != OFFLINE:
                self._announce(user_id)
        if self._users or self._early:
            self._arm()


def _shown(user: _User) -> tuple[str, bool, str | None]:
    return user.state, user.active_now, user.status
