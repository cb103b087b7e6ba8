"""The manual's page of two servers on one machine, its commands taken word for word."""

import os
import re
import signal
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "manual" / "two-servers.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = "=== block"
ALONE = """
import fcntl, os, socket, struct, sys
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(probe, 0x8914, struct.pack("16sh22x", b"lo", 0x49))  # SIOCSIFFLAGS: up, loopback, running
os.execvp(sys.argv[1], sys.argv[1:])
"""


def blocks() -> list[tuple[str, str]]:
    """Commands, each with what they are said to print ("" where nothing is said)."""
    found = BLOCK.findall(PAGE.read_text("utf-8"))
    assert found
    after = [*found[1:], ("sh", "")]
    return [
        (text, said if next_kind == "text" else "")
        for (kind, text), (next_kind, said) in zip(found, after, strict=True)
        if kind == "sh"
    ]


def programs(folder: Path) -> Path:
    """What the tests have done already, or may not do: `make install`, and `sudo` where it is of no use."""
    folder.mkdir()
    for name, text in {"make": 'test "$1" = install', "sudo": '"$@" || true'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def command(script: Path) -> list[str]:
    """The script on a loopback network of its own if the system lets us, so that the page's ports are free."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--keep-caps", "--net"]
    own = [*alone, sys.executable, "-c", ALONE]
    possible = subprocess.run([*own, "true"], capture_output=True).returncode == 0
    return [*(own if possible else []), "bash", "-e", str(script)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block printed; shorter than the page if one failed."""
    home = tmp_path_factory.mktemp("home")
    script = home / "script"
    script.write_text("".join(f"{text}\necho '{MARK}'\n" for text, _ in blocks()))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    path = os.pathsep.join([str(programs(home / "bin")), str(Path(sys.executable).parent), environment["PATH"]])
    environment |= {"HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command(script), cwd=ROOT, env=environment, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=110)
        finally:
            try:
                os.killpg(process.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
    assert process.returncode == 0, output[-3000:]
    return output.split(MARK + "\n")[:-1]


@pytest.mark.timeout(150)
def test_the_page_prints_what_it_says(printed: list[str]) -> None:
    """A … stands for what differs each time."""
    for (text, said), output in zip_longest(blocks(), printed):
        expected = [re.escape(line).replace("…", ".*") for line in said.splitlines()]
        lines = output.splitlines()
        missing = [line for line in expected if not any(re.fullmatch(line, one) for one in lines)]
        assert missing == [], f"{text}\nprinted:\n{output}"
