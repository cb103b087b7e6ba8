"""`folkmoot room explain` beside the running server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from homeserver import cli
from tests.bench.servers import Server
from tests.contract.world import World

ROOT = Path(__file__).parents[2]


def explained(server: Server, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "homeserver.cli", "room", "explain", "--config", str(server.directory / "folkmoot.yaml")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_room_of_the_running_server_is_explained(contract_server: Server, world: World) -> None:
    room = world.room(world.bob)
    bob = world.bob.user_id
    world.must(world.alice, "POST", f"/rooms/{room}/ban", {"user_id": bob, "reason": "noise"})
    path = f"/rooms/{room}/state?format=event"
    members = {event["state_key"]: event for event in world.must(world.alice, "GET", path) if event["type"] == "m.room.member"}
    ban = members[bob]["event_id"]
    status, text = explained(contract_server, room, "--user", bob)
    assert status == 0 and f"{bob} is not joined: banned by {world.alice.user_id}, by {ban}." in text
    status, answer = explained(contract_server, room, "--event", ban, "--user", bob, "--json")
    facts = json.loads(answer)
    assert status == 0 and facts["event"]["in_current_state"] and facts["user"]["membership"] == "ban"
    assert facts["room"]["joined"] == 1 and facts["room"]["servers"] == [world.server_name]
    said = world.message(room)  # the server goes on writing
    assert json.loads(explained(contract_server, room, "--event", said, "--json")[1])["event"]["here"]


def test_what_cannot_be_explained(contract_server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = explained(contract_server, "!nowhere:example.org", "--user", "@a:example.org")
    assert status == 1 and "not known to this server" in text and "@a:example.org is not joined" in text
    for arguments, problem in (
        (["nowhere"], "nowhere is not a room id"),
        (["!r:x", "--user", "alice"], "alice is not a user id"),
        (["!r:x"], "there is no log in"),
    ):
        assert cli.main(["room", "explain", "--data-dir", str(tmp_path), *arguments]) == 1
        assert problem in capsys.readouterr().err
