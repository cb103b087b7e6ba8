"""One peer as the queue sees it: may we talk to it now, how much at once, and what does a failure mean?

A machine without I/O: the clock and the dice come in as arguments, all times are milliseconds. What a queue does
around it (see ``queue``): ask ``ready``, say ``begin``, send, and report ``accepted``, ``unreachable`` or ``refused``.

```
            begin                accepted
   IDLE ───────────▶ IN_FLIGHT ───────────▶ IDLE          (failures forgotten, batches grow again)
    ▲                    │
    │ time or a          │ unreachable, refused
    │ sign of life       ▼
    └─────────────── BACKING_OFF                           (delay doubles up to a cap, with jitter)
```

A refusal (an answer that is no success) makes the next batch smaller, until one item is left alone. When a
transaction with nothing in it is accepted while that item is refused again, the item is at fault and not the peer:
``SET_ASIDE``.
"""

from dataclasses import dataclass
from enum import Enum, auto

import msgspec

MAX_PDUS = 50
MAX_EDUS = 100
"""What one transaction carries at most (Server-Server API, "Transactions")."""

FIRST_DELAY_MS = 5_000
LONGEST_DELAY_MS = 6 * 3600 * 1000
JITTER = 0.25
"""Delays vary by this part up and down, so that peers that failed together are not asked again together."""
DORMANT_AFTER = 4
"""After this many failures in a row the queue in memory is let go: what is missing is read from the log later."""


class Remedy(Enum):
    """What to do after a refusal."""

    RETRY = auto()
    """Try again later, with fewer items when there are several."""
    PROBE = auto()
    """Send nothing, to see whether the peer takes transactions at all."""
    SET_ASIDE = auto()
    """Leave the one item of the last batch behind."""


class Stored(msgspec.Struct, array_like=True):
    """What survives a restart. ``behind``: something after ``cursor`` has not been accepted by the peer."""

    server: str
    cursor: int = 0
    behind: bool = False
    failures: int = 0
    retry_at: int = 0
    last_success: int = 0
    last_failure: int = 0
    reason: str = ""
    failing_since: int = 0


@dataclass(slots=True)
class Destination:
    """The state of one peer."""

    server: str
    cursor: int = 0
    """Everything for this peer up to this position of the log has been accepted; counts only while ``behind``."""
    behind: bool = False
    failures: int = 0
    retry_at: int = 0
    last_success: int = 0
    last_failure: int = 0
    reason: str = ""
    """Why the last attempt failed, for the operator."""
    failing_since: int = 0
    """When the first of the failures in a row was, 0 when there are none."""
    in_flight: bool = False
    room: int = MAX_PDUS
    """How many items the next batch may carry."""
    refusals: int = 0
    """Refusals in a row of a batch with one item."""
    probing: bool = False

    @classmethod
    def restored(cls, stored: Stored) -> "Destination":
        """A peer as it was before a restart."""
        return cls(
            stored.server,
            stored.cursor,
            stored.behind,
            stored.failures,
            stored.retry_at,
            stored.last_success,
            stored.last_failure,
            stored.reason,
            stored.failing_since,
        )

    def stored(self) -> Stored:
        """What to write down."""
        return Stored(
            self.server,
            self.cursor,
            self.behind,
            self.failures,
            self.retry_at,
            self.last_success,
            self.last_failure,
            self.reason,
            self.failing_since,
        )

    @property
    def dormant(self) -> bool:
        """Whether the peer has failed so often that nothing is kept in memory for it."""
        return self.failures >= DORMANT_AFTER

    def ready(self, now: int) -> bool:
        """Whether a transaction may begin now."""
        return not self.in_flight and now >= self.retry_at

    def begin(self) -> None:
        """A transaction is on its way; there is never a second one at the same time."""
        assert not self.in_flight, "one transaction at a time"
        self.in_flight = True

    def accepted(self, now: int) -> None:
        """The peer took the transaction."""
        self.in_flight = False
        self.last_success = now
        if self.probing:
            # The peer is well: what it refused is tried once more, alone.
            self.probing = False
            self.retry_at = 0
            return
        self.failures = self.refusals = self.retry_at = self.failing_since = 0
        self.reason = ""
        self.room = min(MAX_PDUS, self.room * 2)

    def unreachable(self, now: int, dice: float, reason: str) -> None:
        """Nothing came back. ``dice`` is a random number from 0 up to 1."""
        self.in_flight = self.probing = False
        self._fail(now, dice, reason)

    def refused(self, now: int, dice: float, reason: str, items: int, retry_after: int | None = None) -> Remedy:
        """The peer answered a batch of ``items`` with an error; ``retry_after`` (ms) is the wait that it asked for."""
        self.in_flight = False
        was_probe, self.probing = self.probing, False
        if retry_after is not None:
            self._fail(now, dice, reason)
            self.retry_at = max(self.retry_at, now + min(retry_after, LONGEST_DELAY_MS))
            return Remedy.RETRY
        if items > 1:
            self.room = max(1, items // 2)
        elif items == 1 and not was_probe:
            self.refusals += 1
            if self.refusals == 2:
                self.probing = True
                self.reason = reason
                self.retry_at = now
                return Remedy.PROBE
            if self.refusals > 2:
                self.refusals = 0
                self.retry_at = now
                return Remedy.SET_ASIDE
        if was_probe:
            self.refusals = 0  # the peer refuses everything: that is no evidence against the item
        self._fail(now, dice, reason)
        return Remedy.RETRY

    def alive(self, now: int) -> bool:
        """The peer has shown life: the wait is over. Whether that changed anything."""
        waiting = self.retry_at > now
        if waiting:
            self.retry_at = now
            self.failures = min(self.failures, 1)
        return waiting

    def _fail(self, now: int, dice: float, reason: str) -> None:
        self.last_failure = now
        self.failing_since = self.failing_since or now
        self.reason = reason[:200]
        delay = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(self.failures, 20))
        self.failures += 1
        self.retry_at = now + int(delay * (1 + JITTER * (2 * dice - 1)))
