"""Servers that have accounts and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from storage.tables.database import Database
from tests.fakes.accounts import AccountServer


@pytest.fixture
def make_server(database: Database) -> Iterator[Callable[..., AccountServer]]:
    """Make a server with the settings given by keyword; several share the database."""
    servers: list[AccountServer] = []

    def make(**settings: Any) -> AccountServer:
        servers.append(AccountServer(database, reactor, **settings))
        return servers[-1]

    yield make
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.accounts.stop()))


@pytest.fixture
def server(make_server: Callable[..., AccountServer]) -> AccountServer:
    """Open registration, guests, no limits."""
    return make_server()
