"""Tell systemd how we are (sd_notify(3)); without systemd, nothing."""

import os
import socket
from collections.abc import Mapping


class ServiceNotifier:
    """Sends state lines to the socket that the service manager named."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of Linux's abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Start-up is over, or a reload."""
        self._send("READY=1")

    def reloading(self, monotonic_us: int) -> None:
        """Settings are being read again; `ready` ends it. The time is CLOCK_MONOTONIC, for
        Type=notify-reload.
        """
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_us}")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode("ascii"), self._address)
        except OSError:
            pass  # the manager went away; nothing of ours depends on it
