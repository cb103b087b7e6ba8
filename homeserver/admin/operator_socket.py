"""The operator's way to the running server: a Unix socket in the data directory, which only its account may enter.

Whoever can open it owns the data anyway, so that nothing else is asked for. Over it goes HTTP, as everywhere.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from config.schema import Listener
from homeserver.web.http import HttpServer
from homeserver.web.listeners import Listeners
from homeserver.web.router import Router

SOCKET = "operator.sock"
PREFIX = "/_folkmoot/operator/v1"
"""Where its operations are."""


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """The socket's path through an open directory: a data directory may lie deeper than the 107 bytes of an address."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


class OperatorSocket:
    """Listens in a data directory that this process holds."""

    def __init__(self, reactor: Any, directory: Path, router: Router) -> None:
        self._reactor = reactor
        self._directory = directory
        self._server = HttpServer(router, reactor)
        self._listeners: Listeners | None = None
        self._path = short_path(directory)

    def start(self) -> None:
        """Listen. What a killed server has left is put away: the directory's lock says that it is dead."""
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self._directory / name).unlink(missing_ok=True)
        setting = Listener(path=self._path.__enter__(), mode="0600")
        self._listeners = Listeners(self._reactor, self._server, (setting,))
        self._listeners.start()

    async def stop(self, within: float) -> None:
        """Let the calls under way end, the last ones by force after ``within`` seconds."""
        if self._listeners is not None:
            await self._listeners.stop(within)
            self._path.__exit__(None, None, None)
            self._listeners = None
