"""Client libraries other than matrix-nio against a whole server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.servers import Folkmoot

HERE = Path(__file__).parent
JS_SDK = "matrix-js-sdk@^37"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Folkmoot]:
    """A server on a fresh directory."""
    server = Folkmoot(tmp_path)
    asyncio.run(server.start())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def js_sdk() -> Path:
    """A folder where matrix-js-sdk can be imported: `MATRIX_JS_SDK`, or one made once when `CI=true`."""
    if shutil.which("node") is None:
        pytest.skip("no node to run matrix-js-sdk with")
    given = os.environ.get("MATRIX_JS_SDK")
    if given:
        return Path(given)
    folder = Path.home() / ".cache" / "folkmoot-js-sdk"
    if not (folder / ".installed").exists():
        if os.environ.get("CI") != "true" or shutil.which("npm") is None:
            pytest.skip("MATRIX_JS_SDK names no folder with matrix-js-sdk, and there is no CI=true with npm to make one")
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, JS_SDK], check=True)
        (folder / ".installed").touch()
    return folder


def seen_by(command: list[str | Path], **options: Any) -> dict[str, Any]:
    """What the clients of this process saw."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_mautrix(server: Folkmoot) -> None:
    """A bot's library: what it is told of messages, reactions, redactions and memberships."""
    url = f"http://{server.host}:{server.port}"
    seen = seen_by([sys.executable, "-m", "tests.e2e.mautrix_talk", url], cwd=HERE.parents[1])
    assert seen == {
        "texts": [f"hello {number}" for number in range(5)],
        "reaction": True,
        "name": "Ann",
        "alias": True,
        "members": 2,
        "redacted": {},
    }


def test_matrix_js_sdk(server: Folkmoot, js_sdk: Path, tmp_path: Path) -> None:
    """A web client's library: encrypted by its Rust crypto, cross-signed, with a second device that comes later."""
    # Node looks for packages beside the script.
    script = tmp_path / "talk.mjs"
    shutil.copy(HERE / "js_sdk_talk.mjs", script)
    (tmp_path / "node_modules").symlink_to(js_sdk / "node_modules")
    seen = seen_by(["node", script, f"http://{server.host}:{server.port}"])
    assert sorted(seen["texts"]) == ["for both", *(f"secret {number}" for number in range(5))]
    assert seen["phone"] == ["for both"]
    assert seen["crossSigning"] is True
    assert seen["pushRules"] == ["content", "override", "room", "sender", "underride"]
