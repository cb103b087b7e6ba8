"""A homeserver opened and listening: stores, services and listeners in the order in which they need each other."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from config.data_directory import DataDirectory
from config.schema import Config
from homeserver.admin.operator_socket import OperatorSocket
from homeserver.main import Homeserver
from homeserver.same_time import begin_run
from homeserver.services import Services
from homeserver.signing_key_file import signing_keys_of
from homeserver.sync.stream import Code
from homeserver.web.certificate import Certificate
from homeserver.web.configured import connection_limits, socket_settings, timeouts
from homeserver.web.http import HttpServer
from homeserver.web.listeners import Listeners
from homeserver.web.socket import SocketServer
from storage.log.env import open_log
from storage.tables.database_open import open_database
from storage.tables.log_binding import bind_log

DRAIN_SECONDS = 4.0
COMPRESS_FROM = 16 * 1024
"""Bytes of body from which an answer is compressed: below, what compression costs outweighs what it saves."""


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


class Running:
    """A homeserver with its data directory and its listeners."""

    def __init__(
        self,
        homeserver: Homeserver,
        directory: DataDirectory,
        listeners: Listeners,
        operator: OperatorSocket,
        sockets: SocketServer | None = None,
    ) -> None:
        self.homeserver = homeserver
        self._operator = operator
        self._sockets = sockets
        self.listeners = listeners
        self._directory = directory

    async def stop(self) -> None:
        """Drain and stop; everything acknowledged is durable already."""
        if self._sockets is not None:
            # Not waited for: a peer that does not answer is cut with the other connections.
            self._sockets.stop(Code.RESTART, "the server restarts")
        await self._operator.stop(DRAIN_SECONDS)
        await self.listeners.stop(DRAIN_SECONDS)
        await self.homeserver.services.stop()
        self._directory.release()


async def start(config: Config, reactor: Any, now_ms: Callable[[], int] = wall_clock_ms) -> Running:
    """Open everything and listen. Raises ConfigError, LogRefused or DatabaseRefused, which say what to do."""
    directory = DataDirectory(Path(config.data_dir))
    try:
        if config.registration_shared_secret is None:
            # For `folkmoot register-user`, which reads it from the data directory.
            config = replace(config, registration_shared_secret=directory.registration_secret())
        signing_keys = signing_keys_of(config, directory.path)
        database = await open_database(config.database, directory.path, reactor, config.database_connections)
        try:
            log = open_log(directory.path / "log", reactor)
        except BaseException:
            await database.close()
            raise
        try:
            await database.run(lambda cur: bind_log(cur, log.first_epoch))
            await begin_run(database, log)
        except BaseException:
            await log.close()
            await database.close()
            raise
        services = Services(config, reactor, log, database, signing_keys, now_ms)
        homeserver = Homeserver(services)
        sockets = None
        if config.websocket.enabled:
            sockets = SocketServer(homeserver.live, socket_settings(config), reactor)
        server = HttpServer(
            homeserver.router,
            reactor,
            timeouts(config),
            connection_limits(config),
            compress_from=COMPRESS_FROM,
            upgrades=sockets,
            now_ms=now_ms,
        )
        certificate = None
        if config.tls_certificate_path and config.tls_private_key_path:
            certificate = Certificate(config.tls_certificate_path, config.tls_private_key_path)
        listeners = Listeners(reactor, server, config.listeners, certificate)
        operator = OperatorSocket(reactor, directory.path, homeserver.operator_router)
        try:
            services.start()
            operator.start()
            listeners.start()
        except BaseException:
            await operator.stop(0)
            await services.stop()
            raise
        return Running(homeserver, directory, listeners, operator, sockets)
    except BaseException:
        directory.release()
        raise
