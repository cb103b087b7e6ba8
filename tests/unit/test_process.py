"""The process around a server."""

import re
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor

from config.schema import Config
from homeserver.process import Process, time_steadily


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


def test_systemd_hears_when_a_reload_begins_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        process = Process(Config(server_name="x"), None)
        running: Any = SimpleNamespace(listeners=SimpleNamespace(reload_certificate=lambda: heard.append(b"reload")))
        heard: list[bytes] = []
        process._running = running
        process._reload()
        manager.settimeout(5)
        heard += [manager.recv(100) for _ in range(2)]
    assert heard[0] == b"reload" and heard[2] == b"READY=1"
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+", heard[1])
