"""Servers that speak with others on loopback: names with ports, TLS with certificates that nobody checks."""

import os
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.bench.servers import Folkmoot, Synapse


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for ``localhost`` signed by itself, and its key; made when they are not there yet."""
    certificate, key = directory / "tls.crt", directory / "tls.key"
    if not key.exists():
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                "-keyout", str(key), "-out", str(certificate),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        key.chmod(0o600)
    return certificate, key


class FederatingFolkmoot(Folkmoot):
    """Ours: clients on one port, other servers on another with TLS."""

    def __init__(self, directory: Path, federation_port: int) -> None:
        super().__init__(directory)
        self.federation_port = federation_port
        self.server_name = f"localhost:{federation_port}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        # What begins so is a setting of the server; those of the tests are none.
        own = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
        with open(self.directory / "output.log", "ab") as log:
            return subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=own
            )

    def settings(self) -> dict[str, Any]:
        certificate, key = make_certificate(self.directory)
        return super().settings() | {
            "server_name": self.server_name,
            "listeners": [
                {"port": self.port, "bind_addresses": [self.host]},
                {"port": self.federation_port, "bind_addresses": [self.host], "tls": True},
            ],
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "federation_verify_certificates": False,
            "federation_ip_range_blacklist": [],
            "trusted_key_servers": [],
            "allow_public_rooms_over_federation": True,
            "rc_federation": None,
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"},
        }


class FederatingSynapse(Synapse):
    """Synapse, the same way."""

    def __init__(self, directory: Path, venv: Path, federation_port: int) -> None:
        super().__init__(directory, venv)
        self.federation_port = federation_port
        self.server_name = f"localhost:{federation_port}"

    def settings(self) -> dict[str, Any]:
        certificate, key = make_certificate(self.directory)
        settings = super().settings()
        federation = {"type": "http", "bind_addresses": [self.host], "resources": [{"names": ["federation"]}]}
        return settings | {
            "server_name": self.server_name,
            "federation_verify_certificates": False,
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
            "allow_public_rooms_over_federation": True,
            "allow_device_name_lookup_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "listeners": [*settings["listeners"], federation | {"port": self.federation_port, "tls": True}],
            "rc_federation": {"sleep_limit": 100_000, "reject_limit": 100_000, "concurrent": 100},
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"},
        }


def any_certificate() -> ssl.SSLContext:
    """A client's TLS that takes whatever certificate it is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def reaches(server_name: str) -> bool:
    """Whether the federation listener answers."""
    url = f"https://{server_name}/_matrix/federation/v1/version"
    with urllib.request.urlopen(url, timeout=10, context=any_certificate()) as answer:
        return bool(answer.status == 200)

