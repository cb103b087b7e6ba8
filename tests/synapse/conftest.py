"""Both servers, once for all scenes, and people on them."""

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench.servers import free_port
from tests.contract.caller import Caller
from tests.synapse.peers import FolkmootPeer, SynapsePeer, reaches
from tests.synapse.person import Person

SYNAPSE = "matrix-synapse>=1.150"


@pytest.fixture(scope="session")
def synapse_python() -> Path:
    """A Python with Synapse: `SYNAPSE_PYTHON`, or an environment made once when `CI=true`."""
    given = os.environ.get("SYNAPSE_PYTHON")
    if given:
        return Path(given)
    environment = Path.home() / ".cache" / "folkmoot-synapse"
    python = environment / "bin" / "python"
    if (environment / ".installed").exists():
        return python
    if os.environ.get("CI") != "true":
        pytest.skip("no Synapse: SYNAPSE_PYTHON names no Python with it, and CI=true is not set to install one")
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", SYNAPSE], check=True)
    (environment / ".installed").touch()
    return python


@pytest.fixture(scope="session")
def servers(synapse_python: Path) -> Iterator[tuple[FolkmootPeer, SynapsePeer]]:
    """Both, running."""
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-synapse-"))
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
    ours = FolkmootPeer(folder / "ours", free_port())
    theirs = SynapsePeer(folder / "theirs", synapse_python, free_port())

    async def start() -> None:
        await asyncio.gather(ours.start(), theirs.start())

    try:
        asyncio.run(start())
        assert reaches(ours.server_name) and reaches(theirs.server_name)
        yield ours, theirs
    finally:
        ours.stop()
        theirs.stop()
        if os.environ.get("KEEP_SERVERS"):
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """Makes names new."""
    return itertools.count(1)


@pytest.fixture
def ours(servers: tuple[FolkmootPeer, SynapsePeer], numbers: Iterator[int]) -> Callable[[str], Person]:
    """Makes people on Folkmoot."""
    return lambda name: Person(Caller(servers[0].host, servers[0].port), f"{name}{next(numbers)}")


@pytest.fixture
def theirs(servers: tuple[FolkmootPeer, SynapsePeer], numbers: Iterator[int]) -> Callable[[str], Person]:
    """Makes people on Synapse."""
    return lambda name: Person(Caller(servers[1].host, servers[1].port), f"{name}{next(numbers)}")
