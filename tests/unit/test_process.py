"""The process around a server."""

import time

import pytest
from twisted.internet.selectreactor import SelectReactor

from homeserver.process import time_steadily


@pytest.mark.parametrize("step", [-86_400, 86_400])
def test_i15_timers_do_not_go_by_the_wall_clock(step: int) -> None:
    reactor = SelectReactor()
    wall = [time.time()]
    reactor.seconds = lambda: wall[0]
    time_steadily(reactor)
    fired: list[str] = []
    reactor.callLater(0, fired.append, "soon")
    reactor.callLater(3600, fired.append, "late")
    wall[0] += step
    deadline = time.monotonic() + 5
    while not fired and time.monotonic() < deadline:
        reactor.runUntilCurrent()
    assert fired == ["soon"]
