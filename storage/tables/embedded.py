"""A private PostgreSQL: a child process in the server's data directory, on a Unix socket only.

It lives and dies with us: it is told to shut down when we end, even by SIGKILL; one that is left over is ended
before a new one starts; and it is started again when it dies by itself.
"""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from twisted.logger import Logger

from storage.tables import embedded_cluster
from storage.tables.embedded_account import cluster_account
from storage.tables.errors import DatabaseRefused

START_SECONDS = 120.0  # recovery after a crash included
LOG_LIMIT = 1_000_000
_log = Logger()


class EmbeddedPostgres:
    """The PostgreSQL of one data directory, which the caller has locked for itself.

    ``start`` and a supervised restart must happen on a thread that lives as long as the server (the main thread): the
    kernel ends the child when the *thread* that made it ends.
    """

    def __init__(self, data_dir: Path) -> None:
        """Nothing happens before ``start``."""
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._account = cluster_account(self._data_dir, self._cluster)
        self._socket_dir = self._cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._reactor: Any = None
        self._stopping = False
        self._failures = 0

    @property
    def parameters(self) -> dict[str, object]:
        """How to connect, as libpq's parameters."""
        return {
            "host": str(self._socket_dir),
            "port": embedded_cluster.PORT,
            "user": embedded_cluster.USER,
            "dbname": embedded_cluster.DATABASE,
            "sslmode": "disable",
            "gssencmode": "disable",
            "connect_timeout": 5,
            "application_name": "folkmoot",
        }

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start and wait until it accepts connections. Blocks; raises DatabaseRefused with the reason."""
        self._let_account_in()
        embedded_cluster.prepare_cluster(self._cluster, self._account)
        self._end_leftover()
        self._socket_dir = embedded_cluster.choose_socket_dir(self._cluster, self._account)
        embedded_cluster.write_settings(self._cluster, self._account, self._socket_dir)
        self._stopping = False
        self._spawn()
        try:
            self._await_ready()
        except BaseException:
            self.stop()
            raise

    def supervise(self, reactor: Any) -> None:
        """From now on start it again when it dies. ``reactor`` is an IReactorTime and IReactorFromThreads."""
        self._reactor = reactor
        self._watch()

    def stop(self, seconds: float = 5.0) -> None:
        """End it cleanly; blocks until no process is left. It is forced after ``seconds``."""
        self._stopping = True
        process, self._process = self._process, None
        if process is not None:
            for number, patience in (signal.SIGINT, seconds), (signal.SIGQUIT, 2.0), (signal.SIGKILL, None):
                if process.poll() is None:
                    process.send_signal(number)
                try:
                    process.wait(patience)
                    break
                except subprocess.TimeoutExpired:
                    continue
        if self._socket_dir != self._cluster:
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _let_account_in(self) -> None:
        """As root: the data directory stays closed to everybody but its owner and PostgreSQL's account."""
        if self._account.uid >= 0:
            os.chown(self._data_dir, -1, self._account.gid)
            os.chmod(self._data_dir, 0o710)

    def _spawn(self) -> None:
        program = embedded_cluster.programs() / "postgres"
        command = self._account.command(
            program, "-D", str(self._cluster), paths=(self._cluster / "x", self._socket_dir / "x")
        )
        with open(self._log_path(), "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=embedded_cluster.environment(),
                start_new_session=True,  # Ctrl-C is for us; we tell it when we are done
            )

    def _log_path(self) -> Path:
        path = self._data_dir / "postgres.log"
        if path.exists() and path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        if not path.exists():
            path.touch(0o600)
        return path

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise DatabaseRefused(f"PostgreSQL did not start: {self._log_tail()}")
            lines = self._pid_file()
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return
            time.sleep(0.005)
        raise DatabaseRefused(
            f"PostgreSQL did not get ready within {START_SECONDS:.0f} s: {self._log_tail()}"
        )

    def _log_tail(self) -> str:
        text = (self._data_dir / "postgres.log").read_text("utf-8", "replace")
        return f"{text[-1500:].strip()}\n(from {self._data_dir / 'postgres.log'})"

    def _pid_file(self) -> list[str]:
        """The lines of postmaster.pid: pid, directory, start, port, socket directory, address, memory key, status."""
        try:
            return (self._cluster / "postmaster.pid").read_text("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return []

    def _end_leftover(self) -> None:
        """End the PostgreSQL of a server that was killed, gently first."""
        lines = self._pid_file()
        if not lines or not lines[0].isdigit():
            return
        pid = int(lines[0])
        self._signal_all(signal.SIGCONT)  # a stopped one hears nothing
        for number, patience in (signal.SIGINT, 5.0), (signal.SIGQUIT, 2.0):
            if not self._runs_here(pid):
                break
            _log.info("ending the PostgreSQL that an earlier run left behind (process {pid})", pid=pid)
            os.kill(pid, number)
            _wait_until(lambda: not self._runs_here(pid), patience)
        # Without its head the rest soon goes by itself; and nobody may still write when we start.
        _wait_until(lambda: not self._running(), 1.0)
        self._signal_all(signal.SIGKILL)
        _wait_until(lambda: not self._running(), 2.0)
        if not self._running():
            # PostgreSQL takes whoever has this number now for the old server: a zombie that a container's first
            # process does not collect, or another program of this account.
            for name in "postmaster.pid", f".s.PGSQL.{embedded_cluster.PORT}.lock":
                (self._cluster / name).unlink(missing_ok=True)
        if len(lines) > 4 and os.path.basename(lines[4]).startswith("folkmoot-"):
            shutil.rmtree(lines[4], ignore_errors=True)

    def _signal_all(self, number: int) -> None:
        for pid in self._running():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _running(self) -> list[int]:
        """The living processes in our cluster."""
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and self._runs_here(int(name))]

    def _runs_here(self, pid: int) -> bool:
        """Whether ``pid`` is a living process in our cluster; another program may have got the number since."""
        try:
            return os.path.samefile(f"/proc/{pid}/cwd", self._cluster)
        except OSError:
            return False

    def _watch(self) -> None:
        process = self._process
        assert process is not None

        def wait() -> None:
            code = process.wait()
            if not self._stopping:
                self._reactor.callFromThread(self._died, process, code)

        threading.Thread(target=wait, name="PostgreSQL watch", daemon=True).start()

    def _died(self, process: "subprocess.Popen[bytes]", code: int) -> None:
        if self._stopping or process is not self._process:
            return
        delay = min(5.0, 0.05 * 2**self._failures)
        self._failures += 1
        self._reactor.callLater(60, self._forgive)
        _log.error("PostgreSQL ended by itself (status {code}); starting it again", code=code)
        self._reactor.callLater(delay, self._restart)

    def _forgive(self) -> None:
        self._failures = max(0, self._failures - 1)

    def _restart(self) -> None:
        if not self._stopping:
            self._spawn()
            self._watch()


def _wait_until(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
