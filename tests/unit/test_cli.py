"""homeserver.cli: flags become settings, failures become sentences and exit statuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from config.errors import ConfigError
from homeserver import cli
from homeserver.admin import shared_secret


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def parsed(*arguments: str) -> Any:
    return cli.load(cli.parser().parse_args(arguments))


def test_run_flags(tmp_path: Path) -> None:
    config = parsed(
        "run",
        "--server-name",
        "example.org",
        "--data-dir",
        "d",
        "--listen",
        "[::1]:8009",
        "--listen",
        ":80",
        "--open-registration",
    )
    assert config.server_name == "example.org"
    assert config.data_dir == str(tmp_path / "d")
    assert [(one.port, one.bind_addresses) for one in config.listeners] == [
        (8009, ("::1",)),
        (80, ("0.0.0.0", "::")),
    ]
    assert config.enable_registration and config.enable_registration_without_verification


@pytest.mark.parametrize("text", ["8008", "localhost", "::1:8008", "a:b", "a:٣"])
def test_listen_address_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        cli.listen_address(text)


def test_check_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("server_name: example.org")
    bad.write_text("sever_name: example.org")
    assert cli.main(["check-config", "--config", str(good)]) == 0
    assert "example.org" in capsys.readouterr().out
    assert cli.main(["check-config", "--config", str(bad)]) == 2
    assert "did you mean server_name?" in capsys.readouterr().err
    assert cli.main(["check-config", "--json", "--config", str(bad)]) == 2
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 1
    assert cli.main(["check-config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"server_name": "localhost", "problems": []}


def test_version_imports_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from homeserver.cli import main; main(['version', '--json']);"
        "sys.exit([name for name in ('twisted', 'yaml', 'psycopg2', 'lmdb') if name in sys.modules] or 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "version" in json.loads(done.stdout)


def test_register_user_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    command = ["register-user", "alice", "--password-file", "password"]
    assert cli.main(command) == 1
    assert "start the server first" in capsys.readouterr().err
    (tmp_path / "folkmoot-data").mkdir()
    (tmp_path / "folkmoot-data" / "registration_shared_secret").write_text("secret")
    assert cli.main([*command, "--url", "http://127.0.0.1:9"]) == 1
    assert "is it running?" in capsys.readouterr().err
    assert cli.main(["register-user", "alice", "--password-file", "missing"]) == 1


def test_signature_is_what_scripts_for_synapse_compute() -> None:
    # printf 'nonce\0alice\0pw\0admin' | openssl sha1 -hmac secret
    assert shared_secret.signature("secret", "nonce", "alice", "pw", True) == EXPECTED


EXPECTED = "d7b3ebc9fec30d9bed19eb81e3902aa4ad214333"
