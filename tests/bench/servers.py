"""The servers under test: how each is configured, started on a directory and stopped.

Both get a fresh directory, durable commits (fsync on), no rate limits, open registration, one HTTP listener.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import yaml

from tests.bench.connection import Connection
from tests.fakes.postgres import SeparatePostgres

START_SECONDS = 120


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """A server on one directory. ``roots`` are the processes whose trees count as the server's."""

    name = ""
    websocket = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host, self.port = "127.0.0.1", free_port()
        self.roots: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None

    def connection(self, token: str | None = None) -> Connection:
        """A new client connection."""
        return Connection(self.host, self.port, token)

    @property
    def data(self) -> Path:
        """Where everything is that the server stores."""
        return self.directory

    @abstractmethod
    def command(self) -> list[str]:
        """The command that runs it in the foreground."""

    async def start(self) -> float:
        """Start and wait until ``/versions`` answers; gives the seconds that it took."""
        began = time.monotonic()
        self.process = self._spawn()
        self.roots = [self.process.pid]
        connection = self.connection()
        while time.monotonic() - began < START_SECONDS:
            if self.process.poll() is not None:
                break
            try:
                await connection.call("GET", "/_matrix/client/versions")
            except (OSError, ValueError):
                await asyncio.sleep(0.02)
            else:
                connection.close()
                return time.monotonic() - began
        tail = (self.directory / "output.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{self.name} did not start:\n{tail}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        with open(self.directory / "output.log", "ab") as log:
            return subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> float:
        """A clean stop; gives the seconds that it took."""
        began = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return time.monotonic() - began


class Folkmoot(Server):
    """Ours, from this checkout, with its embedded PostgreSQL."""

    name = "folkmoot"
    websocket = True

    def command(self) -> list[str]:
        config = self.directory / "folkmoot.yaml"
        config.write_text(yaml.safe_dump(self.settings()))
        return [str(Path(sys.executable).with_name("folkmoot")), "run", "--config", str(config)]

    def settings(self) -> dict[str, Any]:
        """The configuration."""
        limits = (
            "rc_message", "rc_registration", "rc_registration_token_validity", "rc_login", "rc_joins",
            "rc_invites", "rc_room_creation", "rc_key_requests", "rc_federation",
            "rc_registration_available", "rc_user_directory",
        )  # fmt: skip
        return dict.fromkeys(limits) | {
            "server_name": "bench.localhost",
            "data_dir": str(self.directory / "data"),
            "listeners": [{"port": self.port, "bind_addresses": [self.host]}],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "limits": {"max_connections_per_address": 10_000},
        }

    @property
    def data(self) -> Path:
        return self.directory / "data"


class Synapse(Server):
    """Synapse as pip installs it, one process, on a PostgreSQL of its own."""

    name = "synapse"

    def __init__(self, directory: Path, venv: Path) -> None:
        super().__init__(directory)
        self._python = venv / "bin" / "python"
        self._postgres = SeparatePostgres(directory, "synapse")
        os.chmod(directory, 0o755)

    def command(self) -> list[str]:
        config = self.directory / "homeserver.yaml"
        return [str(self._python), "-m", "synapse.app.homeserver", "-c", str(config)]

    async def start(self) -> float:
        began = time.monotonic()
        if not (self.directory / "homeserver.yaml").exists():
            self._configure()
        if self._postgres.process is None:
            self._postgres.start()
            self._postgres.create_database("synapse")
        assert self._postgres.process is not None
        await super().start()
        self.roots.append(self._postgres.process.pid)
        return time.monotonic() - began

    def stop(self) -> float:
        seconds = super().stop()
        self._postgres.stop()
        return seconds

    def _configure(self) -> None:
        (self.directory / "log.yaml").write_text(yaml.safe_dump(self.logging()))
        (self.directory / "homeserver.yaml").write_text(yaml.safe_dump(self.settings()))
        command = [*self.command(), "--generate-keys"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory)

    def logging(self) -> dict[str, Any]:
        """The configuration of Python's logging."""
        return {"version": 1, "disable_existing_loggers": False, "root": {"level": "WARNING", "handlers": []}}

    def settings(self) -> dict[str, Any]:
        """The configuration."""
        free = {"per_second": 1e6, "burst_count": 1_000_000}
        return {
            "server_name": "bench.localhost",
            "report_stats": False,
            "signing_key_path": str(self.directory / "signing.key"),
            "media_store_path": str(self.directory / "media"),
            "log_config": str(self.directory / "log.yaml"),
            "pid_file": str(self.directory / "synapse.pid"),
            "macaroon_secret_key": secrets.token_hex(16),
            "bcrypt_rounds": 4,
            "trusted_key_servers": [],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "listeners": [
                {
                    "port": self.port,
                    "bind_addresses": [self.host],
                    "type": "http",
                    "resources": [{"names": ["client"]}],
                }
            ],
            "database": {
                "name": "psycopg2",
                "args": {
                    "host": str(self.directory), "user": "synapse", "dbname": "synapse", "cp_max": 10,
                },
            },
            "rc_message": free,
            "rc_registration": free,
            "rc_login": {"address": free, "account": free, "failed_attempts": free},
            "rc_joins": {"local": free, "remote": free},
            "rc_joins_per_room": free,
            "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
            "rc_room_creation": free,
            "rc_presence": {"per_user": free},
            # It would answer the same /sync again from memory for two minutes: not what is asked here.
            "caches": {"sync_response_cache_duration": "0s"},
        }
