"""config.data_directory: permissions, one server at a time, the secret made at first start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.data_directory import DataDirectory, read_registration_secret
from config.errors import ConfigError


def test_made_closed_to_others(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a" / "data") as directory:
        assert directory.path.stat().st_mode & 0o777 == 0o700


def test_opened_to_others_it_is_closed_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with DataDirectory(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_second_server_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"):
            DataDirectory(tmp_path)
        program = "import sys; from pathlib import Path; from config.data_directory import DataDirectory; "
        program += "DataDirectory(Path(sys.argv[1]))"
        other = subprocess.run(
            [sys.executable, "-c", program, tmp_path], capture_output=True, cwd=Path(__file__).parents[3]
        )
        assert f"process {os.getpid()}".encode() in other.stderr
    DataDirectory(tmp_path).release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_i04_directory_of_another_owner_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        DataDirectory(tmp_path)


def test_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        DataDirectory(tmp_path / "data")


def test_b06_registration_secret_is_random_private_and_kept(tmp_path: Path) -> None:
    assert read_registration_secret(tmp_path / "one") is None
    with DataDirectory(tmp_path / "one") as one, DataDirectory(tmp_path / "two") as two:
        secret = one.registration_secret()
        assert len(secret) == 64
        assert secret == one.registration_secret() == read_registration_secret(one.path)
        assert secret != two.registration_secret()
        assert (one.path / "registration_shared_secret").stat().st_mode & 0o777 == 0o600
