"""A server that has accounts and nothing else: real services on a real database behind a router without sockets."""

import time
from collections.abc import Mapping
from typing import Any

from config.schema import Config
from homeserver.accounts.assembly import Accounts, assemble
from homeserver.accounts.passwords import Passwords
from homeserver.admin.register import SharedSecretRegistration
from homeserver.client.account_endpoints import account_endpoints
from homeserver.web.limits import Limits, Rate
from homeserver.web.router import Route, Router
from storage.tables.database import Database
from tests.fakes.web import Client

OPEN = {"enable_registration": True, "enable_registration_without_verification": True, "allow_guest_access": True}


class AccountServer:
    """``clock_ms`` is added to the wall clock, so that tests can let tokens expire."""

    def __init__(
        self,
        database: Database,
        reactor: Any,
        rates: Mapping[str, Rate] | None = None,
        extra_routes: list[Route] | None = None,
        **settings: Any,
    ) -> None:
        self.clock_ms = 0
        self.config = Config(**{"server_name": "example.org", **OPEN, **settings})
        self.database = database
        self.limits = Limits(rates or {}, time.monotonic)
        self.accounts: Accounts = assemble(
            database,
            reactor,
            self.config,
            self.limits,
            self.now_ms,
            Passwords(reactor, memory_kib=64, time_cost=1),
        )
        routes = account_endpoints(self.accounts, database, self.config, self.limits, self.now_ms)
        shared_secret = SharedSecretRegistration(self.accounts.registration, self.config, self._seconds)
        routes += shared_secret.routes()
        self.router = Router(routes + (extra_routes or []), self.accounts.authenticator, self.limits)
        self.client = Client(self.router)

    def _seconds(self) -> float:
        return self.now_ms() / 1000

    def now_ms(self) -> int:
        """Wall time in milliseconds, as far ahead as the test wants."""
        return int(time.time() * 1000) + self.clock_ms

    async def register(self, name: str, password: str = "correct horse", **fields: Any) -> dict[str, Any]:
        """Register with the dummy stage and expect success."""
        body = {"username": name, "password": password, "auth": {"type": "m.login.dummy"}, **fields}
        status, answer = await self.client.request("POST", "/_matrix/client/v3/register", body)
        assert status == 200, answer
        return answer

    async def login(self, user: str, password: str = "correct horse", **fields: Any) -> tuple[int, dict[str, Any]]:
        """`POST /login` with a password."""
        identifier = {"type": "m.id.user", "user": user}
        body = {"type": "m.login.password", "identifier": identifier, "password": password, **fields}
        return await self.client.request("POST", "/_matrix/client/v3/login", body)

    async def whoami(self, token: str) -> tuple[int, dict[str, Any]]:
        """`GET /account/whoami`."""
        return await self.client.request("GET", "/_matrix/client/v3/account/whoami", token=token)
