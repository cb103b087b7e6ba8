"""What of presence a restart leaves: the clock begins anew, wall time goes on, or back."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.presence_memory import PresenceMemory
from storage.log.append import Log
from storage.memory import MemoryStore, open_memory_log

A = "@a:x"
NOW = 1_700_000_000_000


def started(log: Log, clock: Clock, now_ms: int, enabled: bool = True) -> tuple[Presence, PresenceMemory]:
    presence = Presence(clock, lambda user_id: None, enabled)
    return presence, PresenceMemory(log, presence, clock, lambda: now_ms)


def saved(memory: PresenceMemory, clock: Clock) -> None:
    done = Deferred.fromCoroutine(memory.save_active())
    clock.advance(0)
    assert done.called


@pytest.mark.parametrize(("later_ms", "ago"), [(90_000, 95_000), (-86_400_000, 0)])
def test_i15_activity_is_kept_in_wall_time(later_ms: int, ago: int) -> None:
    clock = Clock()
    clock.advance(50_000)
    log = open_memory_log(MemoryStore(clock), clock, "e")
    presence, memory = started(log, clock, NOW)
    assert presence.set(A, "D", "online", "tea") and not presence.set(A, "D", "online", "tea")
    clock.advance(5)
    saved(memory, clock)
    rebooted = Clock()
    again, _ = started(log, rebooted, NOW + later_ms)
    content = {"presence": "offline", "last_active_ago": ago, "status_msg": "tea"}
    assert again.known(A) and again.content(A) == content
    again.sync_started(A, "D")
    assert again.content(A)["currently_active"] is True


def test_who_was_not_active_is_not_written_again() -> None:
    clock = Clock()
    log = open_memory_log(MemoryStore(clock), clock, "e")
    presence, memory = started(log, clock, NOW)
    presence.sync_started(A, "D")
    saved(memory, clock)
    commits = log.groups
    saved(memory, clock)
    assert log.groups == commits


def test_without_presence_nothing_is_kept_or_shown() -> None:
    clock = Clock()
    log = open_memory_log(MemoryStore(clock), clock, "e")
    presence, memory = started(log, clock, NOW)
    presence.set(A, "D", "online", "tea")
    saved(memory, clock)
    silent, _ = started(log, clock, NOW, enabled=False)
    assert not silent.known(A) and silent.content(A) == {"presence": "offline"}
