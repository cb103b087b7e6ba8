"""Names and the addresses of this machine."""

import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from federation.wire.dns import SystemDns


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("moot.localhost", "localhost"),
        ("a.b.LocalHost.", "localhost"),
        ("localhost", "localhost"),
        ("mylocalhost", "mylocalhost"),
        ("localhost.example", "localhost.example"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_names_below_localhost_are_this_machine(monkeypatch: pytest.MonkeyPatch, host: str, asked: str) -> None:
    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        assert name == asked
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    dns = SystemDns(reactor)
    try:
        assert await dns.addresses(host) == ["127.0.0.1"]
    finally:
        dns.stop()
