"""One server process for all contract tests, and the small world on it."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.servers import Folkmoot, Server, Synapse
from tests.contract.caller import Caller
from tests.contract.world import World


class WithGuests(Folkmoot):
    """Ours, which lets guests in."""

    def settings(self) -> dict[str, Any]:
        """The configuration."""
        return super().settings() | {"allow_guest_access": True}


@pytest.fixture(scope="session")
def contract_server() -> Iterator[Server]:
    """A running server. `FOLKMOOT_CONTRACT_SYNAPSE` names an environment with Synapse, to test the tests."""
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-contract-"))
    synapse = os.environ.get("FOLKMOOT_CONTRACT_SYNAPSE")
    server: Server = Synapse(folder, Path(synapse)) if synapse else WithGuests(folder)
    try:
        asyncio.run(server.start())
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def world(contract_server: Server) -> World:
    """People and rooms on it."""
    return World(Caller(contract_server.host, contract_server.port))
