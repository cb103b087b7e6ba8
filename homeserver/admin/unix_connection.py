"""HTTP over a Unix socket, for commands. Blocks."""

import socket
from http.client import HTTPConnection


class UnixConnection(HTTPConnection):
    """An HTTPConnection to a socket file."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        self._timeout_seconds = timeout_seconds

    def connect(self) -> None:
        """As HTTPConnection's, to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_seconds)
        self.sock.connect(self._path)
