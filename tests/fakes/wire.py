"""An internet of functions: each host and port is a function from a request to an answer."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from federation.rules.signing import SigningKey
from federation.wire import key_answers
from federation.wire.client import FederationClient
from federation.wire.destinations import InMemoryDestinations
from federation.wire.discovery import Target
from federation.wire.domains import Domains
from federation.wire.http import ConnectFailure, HttpAnswer, HttpRequest, TooLarge
from federation.wire.resolver import Resolver
from federation.wire.well_known import Pin, Policy
from federation.wire.well_known_fetch import WellKnownFetch
from tests.fakes.dns import FakeDns

Server = Callable[[HttpRequest], HttpAnswer]


def answer(body: Any, status: int = 200, **headers: str) -> HttpAnswer:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return HttpAnswer(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


class FakeHttp:
    """``http.Http`` without a network; ``sent`` are the requests so far."""

    def __init__(self) -> None:
        self.servers: dict[Target, Server] = {}
        self.sent: list[HttpRequest] = []

    def on(self, host: str, port: int, server: Server) -> None:
        self.servers[Target(host, port)] = server

    async def request(self, request: HttpRequest, seconds: float, max_bytes: int) -> HttpAnswer:
        self.sent.append(request)
        server = self.servers.get(request.target)
        if server is None:
            raise ConnectFailure(f"nobody at {request.target.host} port {request.target.port}")
        got = server(request)
        if len(got.body) > max_bytes:
            raise TooLarge("too large")
        return got


class MemoryPins:
    def __init__(self) -> None:
        self.pins: dict[str, Pin] = {}

    async def get(self, server_name: str) -> Pin | None:
        return self.pins.get(server_name)

    async def put(self, server_name: str, pin: Pin) -> None:
        self.pins[server_name] = pin


class World:
    """One of our servers (``here.example``) on the wire, and time that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.wall_error_ms = 0
        self.http = FakeHttp()
        self.dns = FakeDns()
        self.pins = MemoryPins()
        self.policies: dict[str, Policy] = {}
        self.key = SigningKey.from_seed(b"h" * 32, "here.example")
        self.destinations = InMemoryDestinations(lambda: self.now, lambda: 0.5, 30_000, 2.0, 86_400_000)
        self.resolver = Resolver(
            WellKnownFetch(self.http, self.wall, "Folkmoot/test"),
            self.dns,
            self.pins,
            lambda name: self.policies.get(name, "prefer"),
            self.wall,
            lambda: self.now,
            lambda: 0.5,
        )
        self.domains = Domains(deny=["evil.example"])
        self.client = FederationClient(
            self.key,
            "here.example",
            self.resolver,
            self.http,
            self.domains,
            self.destinations,
            "Folkmoot/test",
        )

    def wall(self) -> int:
        """The wall clock, which somebody may have set."""
        return self.now + self.wall_error_ms


def key_document(name: str, *keys: SigningKey, until: int, old: Mapping[str, tuple[str, int]] | None = None) -> Any:
    """What a server's key endpoint says."""
    return key_answers.make(name, list(keys), old or {}, until)
