"""Time for waits: the wall clock as it was at the start, going on with the timers.

How long a server is left alone, or something is kept, is as long as it is when somebody sets the wall clock meanwhile. When
something was said, or for how long a key is valid, goes by the wall clock itself.
"""

from collections.abc import Callable
from typing import Any


def steady_ms(clock: Any, now_ms: Callable[[], int]) -> Callable[[], int]:
    """Milliseconds since the epoch. ``clock`` is the reactor, whose ``seconds`` nobody sets; ``now_ms`` the wall clock."""
    ahead = now_ms() - int(clock.seconds() * 1000)
    return lambda: int(clock.seconds() * 1000) + ahead
