"""Commands of the operator beside a server that runs, as their own processes."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.servers import Folkmoot
from tests.contract.caller import Caller, Reply

ROOT = Path(__file__).resolve().parents[2]
V3 = "/_matrix/client/v3"
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folkmoot]:
    running = Folkmoot(tmp_path_factory.mktemp("commands"))
    try:
        asyncio.run(running.start())
        yield running
    finally:
        running.stop()


def caller(server: Folkmoot) -> Caller:
    return Caller(server.host, server.port)


def folkmoot(server: Folkmoot, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the server's configuration; ``more`` goes into the environment."""
    command = [sys.executable, "-m", "homeserver.cli", *arguments, "--config", str(server.directory / "folkmoot.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def login(server: Folkmoot, name: str, password: str = PASSWORD) -> Reply:
    identifier = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": identifier, "password": password}
    return caller(server).call("POST", f"{V3}/login", body=body)


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return str(tmp_path / "password")


def test_register_user_makes_an_account_once(server: Folkmoot, password_file: str) -> None:
    done = folkmoot(server, "register-user", "alice", "--password-file", password_file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Created @alice:bench.localhost\n", "")
    assert login(server, "alice").status == 200
    again = folkmoot(server, "register-user", "alice", "--password-file", password_file)
    assert (again.returncode, again.stdout) == (1, "")
    assert "M_USER_IN_USE" in again.stderr and "Traceback" not in again.stderr


def test_register_user_answers_in_json_and_makes_administrators(server: Folkmoot, password_file: str) -> None:
    done = folkmoot(server, "register-user", "root", "--admin", "--json", "--password-file", password_file)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"user_id": "@root:bench.localhost"}
    folkmoot(server, "register-user", "nobody", "--password-file", password_file)
    path = f"{V3}/admin/whois/@alice:bench.localhost"
    statuses = {}
    for name in ("root", "nobody"):
        token = login(server, name).body["access_token"]
        statuses[name] = caller(server).call("GET", path, token=token).status
    assert statuses == {"root": 200, "nobody": 403}


def test_register_user_with_the_wrong_secret(server: Folkmoot, password_file: str) -> None:
    """A secret in the environment wins over the one in the data directory."""
    wrong = {"FOLKMOOT_REGISTRATION_SHARED_SECRET": "0123456789abcdef0123456789abcdef"}
    done = folkmoot(server, "register-user", "mallory", "--password-file", password_file, **wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert "The MAC is wrong" in done.stderr and "Traceback" not in done.stderr
    assert login(server, "mallory").status == 403


@pytest.mark.parametrize(("second", "status"), [(PASSWORD, 0), ("something else", 1)])
def test_register_user_asks_for_the_password_twice(server: Folkmoot, second: str, status: int) -> None:
    """On a terminal, which does not show it."""
    name = f"asked{status}"
    config = str(server.directory / "folkmoot.yaml")
    command = [sys.executable, "-m", "homeserver.cli", "register-user", name, "--config", config]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, command, os.environ | {"PYTHONPATH": str(ROOT)})
    shown = until(terminal, "Password: ")
    os.write(terminal, PASSWORD.encode() + b"\n")
    shown += until(terminal, "Again: ")
    os.write(terminal, second.encode() + b"\n")
    shown += until(terminal, None)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status, shown
    assert PASSWORD not in shown and second not in shown
    assert ("Created" in shown, "differ" in shown) == (status == 0, status == 1)
    assert login(server, name).status == (403 if status else 200)


def until(terminal: int, text: str | None) -> str:
    """What the terminal shows up to a text, or to the end."""
    shown = ""
    while text is None or text not in shown:
        try:
            read = os.read(terminal, 1000)
        except OSError:  # how the end of a terminal reads
            break
        if not read:
            break
        shown += read.decode()
    return shown


def test_new_epoch_lets_every_client_sync_from_the_beginning(server: Folkmoot, password_file: str) -> None:
    assert folkmoot(server, "register-user", "carol", "--password-file", password_file).returncode == 0
    token = login(server, "carol").body["access_token"]
    room_id = caller(server).call("POST", f"{V3}/createRoom", token=token, body={}).body["room_id"]

    def sync(since: str | None) -> dict[str, Any]:
        reply = caller(server).call("GET", f"{V3}/sync", token=token, query={"since": since} if since else None)
        assert reply.status == 200, reply
        body: dict[str, Any] = reply.body
        return body

    since = sync(None)["next_batch"]
    assert room_id not in sync(since).get("rooms", {}).get("join", {})
    refused = folkmoot(server, "new-epoch")
    assert refused.returncode == 2 and "in use by another server" in refused.stderr
    server.stop()
    try:
        done = folkmoot(server, "new-epoch")
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"The epoch is \S+ now\. Every client syncs from the beginning\.\n", done.stdout)
    finally:
        asyncio.run(server.start())
    after = sync(since)
    assert room_id in after["rooms"]["join"], "a token of the old epoch did not begin anew"
    assert room_id not in sync(after["next_batch"]).get("rooms", {}).get("join", {})
