"""A PostgreSQL apart from the server, as an operator has it: other programs, TCP and a Unix socket, its own life."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg2

from storage.tables.embedded_cluster import programs

TEST_POSTGRES = "TEST_POSTGRES"
"""Environment: the ``bin`` directory of another PostgreSQL than the embedded one, to try its version."""

LAST_SECONDS = 30.0


class SeparatePostgres:
    """One instance in ``directory``, which other accounts have to be able to enter when we are root."""

    def __init__(self, directory: Path, user: str = "folkmoot", tcp_port: int | None = None) -> None:
        """``tcp_port`` None: on the socket in ``directory`` alone."""
        self.directory = directory
        self.parameters: dict[str, object] = {
            "host": str(directory) if tcp_port is None else "127.0.0.1",
            "port": tcp_port or 5432,
            "user": user,
            "dbname": "postgres",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._account = _unprivileged()
        named = os.environ.get(TEST_POSTGRES)
        self._programs = Path(named) if named else programs()

    def start(self) -> None:
        """Make the files if there are none, start, and wait until it answers."""
        cluster = self.directory / "postgres"
        if not cluster.exists():
            cluster.mkdir()
            if self._account is not None:
                shutil.chown(cluster, self._account)
                os.chmod(self.directory, 0o777)  # for the socket
            options = ["-U", str(self.parameters["user"]), "-A", "trust", "-E", "UTF8", "--locale=C"]
            initdb = [self._programs / "initdb", "-D", cluster, *options]
            subprocess.run(initdb, check=True, capture_output=True, user=self._account, cwd="/")
        tcp = "127.0.0.1" if self.parameters["host"] == "127.0.0.1" else ""
        options = ["-c", f"listen_addresses={tcp}", "-c", f"port={self.parameters['port']}"]
        options += ["-c", f"unix_socket_directories={self.directory}"]
        with open(self.directory / "postgres.log", "ab") as log:
            self.process = subprocess.Popen(
                [self._programs / "postgres", "-D", cluster, *options],
                stdout=log,
                stderr=log,
                user=self._account,
                cwd="/",
            )
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + LAST_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def execute(self, sql: str) -> None:
        """One statement outside a transaction."""
        connection = psycopg2.connect(**self.parameters)  # type: ignore[call-overload]
        try:
            connection.autocommit = True
            connection.cursor().execute(sql)
        finally:
            connection.close()

    def create_database(self, name: str) -> dict[str, object]:
        """A database unless it is there; how to reach it."""
        try:
            self.execute(f"CREATE DATABASE {name}")
        except psycopg2.errors.DuplicateDatabase:
            pass
        return self.parameters | {"dbname": name}

    def signal(self, number: int) -> None:
        """Send a signal to every process of it."""
        assert self.process is not None
        for pid in self._pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """SIGKILL to all of it, as a power cut would."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """A quick, clean stop."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.wait(LAST_SECONDS)

    def _pids(self) -> list[int]:
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, listed.split())]


def _unprivileged() -> str | None:
    """An account that may run PostgreSQL when we are root, else None (our own)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise RuntimeError("as root an account 'postgres' or 'nobody' is needed for PostgreSQL")
