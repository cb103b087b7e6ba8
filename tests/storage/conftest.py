"""The log's two stores, one after the other."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.log import Harness


@pytest.fixture(params=["lmdb", "memory"])
def harness(request: Any, tmp_path: Path) -> Harness:
    """A closed log; open it with ``harness.open()``."""
    return Harness(request.param, tmp_path / "log")


@pytest.fixture
def lmdb_harness(tmp_path: Path) -> Harness:
    """A closed log in LMDB."""
    return Harness("lmdb", tmp_path / "log")
