"""Presence that other servers tell of."""

from twisted.internet.task import Clock

from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.remote_presence import EARLY, MAX_EARLY, SILENCE

R = "@r:one"


class Here:
    def __init__(self) -> None:
        self.clock = Clock()
        self.announced: list[str] = []
        self.presence = Presence(self.clock, self.announced.append)
        self.shared = {R}
        self.remote = self.presence.remote
        self.remote.shares = lambda user_id: user_id in self.shared

    def passes(self, seconds: float) -> None:
        for _ in range(int(seconds // 10) + 1):
            self.clock.advance(10)


def test_it_is_shown_and_announced_when_something_changes() -> None:
    here = Here()
    here.remote.update(R, "online", 2000, True, "busy")
    here.remote.update(R, "online", 5000, True, "busy")
    assert here.announced == [R]
    content = here.presence.content(R)
    assert content == {"presence": "online", "last_active_ago": 5000, "currently_active": True, "status_msg": "busy"}
    assert here.presence.known(R)
    here.remote.update(R, "unavailable", 5000, True, None)
    assert here.announced == [R, R]
    assert here.presence.content(R) == {"presence": "unavailable", "last_active_ago": 5000}


def test_it_ends_when_the_server_falls_silent() -> None:
    here = Here()
    here.remote.update(R, "online", 0, True, None)
    here.passes(SILENCE - 60)
    here.remote.update(R, "online", 0, True, None)
    here.passes(SILENCE - 60)
    assert here.presence.content(R)["presence"] == "online"
    here.passes(120)
    assert here.presence.content(R) == {"presence": "offline"}
    assert here.announced == [R, R]
    assert not here.clock.getDelayedCalls()


def test_strangers_are_kept_for_a_minute_and_in_small_number() -> None:
    here = Here()
    here.shared = set()
    for number in range(MAX_EARLY + 5):
        here.remote.update(f"@r{number}:one", "online", 0, True, None)
    assert not here.presence.known("@r0:one")
    here.shared = {"@r900:one"}
    here.passes(EARLY + 60)
    assert here.presence.known("@r900:one")
    assert not here.presence.known("@r901:one")
    assert here.announced == []
