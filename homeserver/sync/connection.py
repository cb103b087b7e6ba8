"""One live WebSocket connection: who it is, what it wants, what it has been sent."""

from typing import Any

from twisted.internet.interfaces import IDelayedCall

from homeserver.sync.filters import EVERYTHING, SyncFilter
from homeserver.sync.stream import Delivery, Stream
from homeserver.sync.tokens import Since
from homeserver.web.call import Call, Requester
from homeserver.web.socket import Socket


class Connection:
    """State of a connection; ``requester`` is set once the hello was accepted."""

    __slots__ = (
        "acked",
        "acking",
        "calls",
        "delivery",
        "filter",
        "hello_timer",
        "inbox",
        "leaving",
        "presence",
        "requester",
        "resumes",
        "session_timer",
        "slow_timer",
        "socket",
        "stream",
        "token",
        "unread_rooms",
        "unread_timer",
        "wants_unread",
    )

    def __init__(self, socket: Socket, stream: Stream) -> None:
        self.socket = socket
        self.stream = stream
        self.requester: Requester | None = None
        self.token = ""
        self.filter: SyncFilter = EVERYTHING
        self.presence = "online"
        self.wants_unread = False
        self.resumes = False
        """Whether the client holds anything: False until the first body of a sync from the beginning was sent."""
        self.delivery = Delivery(0)
        self.inbox = 0
        """Position up to which to-device messages were sent."""
        self.acked: Since | None = None
        self.acking = False
        self.calls: set[Call] | None = None
        self.unread_rooms: set[str] | None = None
        self.leaving = False
        """The session has ended; only answers to calls that are under way still go out."""
        self.hello_timer: IDelayedCall | None = None
        self.session_timer: IDelayedCall | None = None
        self.slow_timer: IDelayedCall | None = None
        self.unread_timer: IDelayedCall | None = None

    @property
    def user_id(self) -> str:
        """The user, once the hello was accepted."""
        return "" if self.requester is None else self.requester.user_id

    @property
    def device_id(self) -> str:
        """The device, once the hello was accepted."""
        return "" if self.requester is None else self.requester.device_id or ""

    @property
    def since(self) -> Since | None:
        """What the client holds; None before the first body of a sync from the beginning."""
        return Since(self.delivery.sent, self.inbox) if self.resumes else None

    def stop_timers(self) -> None:
        """Cancel what is still to happen."""
        timers: list[Any] = [self.hello_timer, self.session_timer, self.slow_timer, self.unread_timer]
        for timer in timers:
            if timer is not None and timer.active():
                timer.cancel()
        self.hello_timer = self.session_timer = self.slow_timer = self.unread_timer = None
