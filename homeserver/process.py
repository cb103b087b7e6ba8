"""The process of `folkmoot run`: the ready line, signals, the service manager, and the exit status."""

import signal
import sys
import time
from types import FrameType
from typing import Any

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from config.errors import ConfigError
from config.schema import Config
from homeserver.accounts.first_account import first_account_token
from homeserver.log_output import begin_logging
from homeserver.start import Running, start
from homeserver.web.sd_notify import ServiceNotifier
from storage.log.errors import LogRefused
from storage.tables.errors import DatabaseRefused


async def _announce(running: Running, out: Any) -> None:
    """The ready line, and for a server without accounts how to make the first one."""
    services = running.homeserver.services
    where = ", ".join(running.listeners.urls)
    token = await first_account_token(services.database, services.now_ms)
    print(f"Folkmoot is ready: {services.config.server_name} at {where}", file=out, flush=True)
    if token is not None:
        print(
            "There are no accounts yet. The first one becomes the administrator; make it in any Matrix client "
            f"with this registration token: {token}",
            file=out,
            flush=True,
        )


class Process:
    """One server in a process of its own, from the first line of its start to its exit status."""

    def __init__(self, config: Config, reactor: Any) -> None:
        self._config = config
        self._reactor = reactor
        self._notify = ServiceNotifier()
        self._report = Logger(namespace="folkmoot")
        self._running: Running | None = None
        self._stopping = False
        self.status = 0

    def begin(self) -> None:
        """Take the signals and start. Call it when the reactor runs."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        defer.ensureDeferred(self._start()).addErrback(self._crashed)

    async def _start(self) -> None:
        try:
            self._running = await start(self._config, self._reactor)
        except (ConfigError, DatabaseRefused, LogRefused, CannotListenError) as problem:
            self._give_up(str(problem))
            return
        self._running.homeserver.services.log.on_failure = self._log_failed
        await _announce(self._running, sys.stdout)
        self._notify.ready()

    def _crashed(self, failure: Failure) -> None:
        self._report.failure("the server could not start", failure)
        self._give_up(repr(failure.value))

    def _give_up(self, why: str) -> None:
        print(f"folkmoot: {why}", file=sys.stderr)
        self.status = 1
        self._reactor.stop()

    def _log_failed(self, error: BaseException) -> None:
        # After a failed sync the kernel may have dropped what it could not write: nothing that this process
        # remembers is to be trusted, so that the next start reads what is really there.
        self._report.critical("the log cannot be written ({error!r}): stopping", error=error)
        self.status = 1
        self._reactor.callLater(0, self._stop)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._reload if number == signal.SIGHUP else self._stop)

    def _reload(self) -> None:
        if self._running is not None:
            self._notify.reloading(time.monotonic_ns() // 1000)
            self._running.listeners.reload_certificate()
            self._notify.ready()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._notify.stopping()
            defer.ensureDeferred(self._end()).addErrback(lambda failure: self._report.failure("stopping", failure))

    async def _end(self) -> None:
        try:
            if self._running is not None:
                await self._running.stop()
        finally:
            self._reactor.stop()


def time_steadily(reactor: Any) -> None:
    """Let timers go by a clock that nobody sets. Twisted's go by the wall clock: set back a day, they all stop for a day."""
    reactor.seconds = time.monotonic


def run(config: Config) -> int:
    """Run a server until SIGTERM or SIGINT; the process's exit status."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    log = begin_logging(config)
    process = Process(config, reactor)
    reactor.callWhenRunning(process.begin)
    reactor.run(installSignalHandlers=False)
    log.close()
    return process.status
