"""One connection to PostgreSQL: opening it, judging whether the server is fit, noticing that it died."""

import os
import select
import socket
from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2 import extensions

from storage.tables.errors import DatabaseRefused

OLDEST_VERSION = 140000

_SETTINGS = """
SELECT set_config('statement_timeout', %s, false), current_setting('fsync'), current_setting('synchronous_commit'),
       current_setting('server_encoding'), current_setting('full_page_writes'), current_setting('transaction_read_only')
"""


class Connection:
    """A checked connection in autocommit mode; transactions are opened by the cursors."""

    def __init__(self, parameters: Mapping[str, object], statement_timeout_ms: int) -> None:
        """Connect. Raises psycopg2.OperationalError when the server is away, DatabaseRefused when it is unfit."""
        self.raw: extensions.connection = psycopg2.connect(**dict[str, Any](parameters))
        try:
            self.raw.autocommit = True
            self._check(statement_timeout_ms)
        except BaseException:
            self.raw.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.raw.fileno(), select.POLLIN)
        # Of our own, so that `cut` never meets another file that got the number of a closed connection.
        self._socket = socket.socket(fileno=os.dup(self.raw.fileno()))
        self.was_cut = False

    def _check(self, statement_timeout_ms: int) -> None:
        with self.raw.cursor() as cur:
            cur.execute(_SETTINGS, (str(statement_timeout_ms),))
            row = cur.fetchone()
        assert row is not None
        _timeout, fsync, synchronous_commit, encoding, full_page_writes, read_only = row
        if self.raw.server_version < OLDEST_VERSION:
            version = self.raw.server_version
            raise DatabaseRefused(
                f"PostgreSQL {version // 10000} is too old; Folkmoot needs version 14 or newer"
            )
        if encoding != "UTF8":
            raise DatabaseRefused(
                f"The database has the encoding {encoding}; create it with "
                "CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
            )
        for setting, value in ("fsync", fsync), ("full_page_writes", full_page_writes):
            if value != "on":
                raise DatabaseRefused(
                    f"PostgreSQL runs with {setting} off and can lose data; set {setting} = on"
                )
        if synchronous_commit == "off":
            raise DatabaseRefused(
                "PostgreSQL runs with synchronous_commit off and can lose what was acknowledged; "
                "set synchronous_commit = on"
            )
        if read_only == "on":
            raise psycopg2.OperationalError(
                "the server takes no writes (a standby, or default_transaction_read_only)"
            )

    def alive(self) -> bool:
        """False when the server has closed the connection (an idle connection has nothing to read)."""
        return not self.raw.closed and not self._poll.poll(0)

    def cut(self) -> None:
        """From another thread: who waits for the server's answer on this connection finds it lost, at once."""
        self.was_cut = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # lost or closed already

    def close(self) -> None:
        """Close it, whatever its state."""
        try:
            self.raw.close()
        except psycopg2.Error:
            pass
        self._socket.close()
