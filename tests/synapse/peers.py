"""Folkmoot and Synapse as neighbours on loopback: names with ports, TLS with certificates that nobody checks."""

import os
import secrets
import ssl
import subprocess
import urllib.request
from pathlib import Path

import yaml

from tests.bench.servers import Folkmoot, Server, Synapse

LIMITS = (
    "rc_message", "rc_registration", "rc_registration_token_validity", "rc_login", "rc_joins",
    "rc_invites", "rc_room_creation", "rc_key_requests",
)  # fmt: skip


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for ``localhost`` signed by itself, and its key."""
    certificate, key = directory / "tls.crt", directory / "tls.key"
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


class FolkmootPeer(Folkmoot):
    """Ours: clients on one port, other servers on another with TLS."""

    def __init__(self, directory: Path, federation_port: int) -> None:
        super().__init__(directory)
        self._federation_port = federation_port
        self.server_name = f"localhost:{federation_port}"

    def _spawn(self) -> subprocess.Popen[bytes]:
        # What begins so is a setting of the server; those of the tests are none.
        own = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
        with open(self.directory / "output.log", "ab") as log:
            return subprocess.Popen(
                self.command(), cwd=self.directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=own
            )

    def command(self) -> list[str]:
        command = super().command()
        file = self.directory / "folkmoot.yaml"
        certificate, key = make_certificate(self.directory)
        settings = yaml.safe_load(file.read_text()) | {
            "server_name": self.server_name,
            "listeners": [
                {"port": self.port, "bind_addresses": [self.host]},
                {"port": self._federation_port, "bind_addresses": [self.host], "tls": True},
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
        file.write_text(yaml.safe_dump(settings))
        return command


class SynapsePeer(Synapse):
    """Synapse on SQLite: durable enough for a peer, and started in a moment."""

    def __init__(self, directory: Path, python: Path, federation_port: int) -> None:
        super().__init__(directory, python.parent.parent)
        self._python = python
        self._federation_port = federation_port
        self.server_name = f"localhost:{federation_port}"

    async def start(self) -> float:
        if not (self.directory / "homeserver.yaml").exists():
            self._configure()
        return await Server.start(self)

    def _configure(self) -> None:
        certificate, key = make_certificate(self.directory)
        free = {"per_second": 1e6, "burst_count": 1_000_000}
        log = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
            "handlers": {"file": {"class": "logging.FileHandler", "formatter": "plain", "filename": "synapse.log"}},
            "root": {"level": "INFO", "handlers": ["file"]},
        }
        (self.directory / "log.yaml").write_text(yaml.safe_dump(log))
        federation = {"type": "http", "bind_addresses": [self.host], "resources": [{"names": ["federation"]}]}
        client = {"type": "http", "bind_addresses": [self.host], "resources": [{"names": ["client"]}]}
        settings = {
            "server_name": self.server_name,
            "report_stats": False,
            "signing_key_path": str(self.directory / "signing.key"),
            "media_store_path": str(self.directory / "media"),
            "log_config": str(self.directory / "log.yaml"),
            "pid_file": str(self.directory / "synapse.pid"),
            "macaroon_secret_key": secrets.token_hex(16),
            "bcrypt_rounds": 4,
            "trusted_key_servers": [],
            "federation_verify_certificates": False,
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
            "allow_public_rooms_over_federation": True,
            "allow_device_name_lookup_over_federation": True,
            "room_list_publication_rules": [{"action": "allow"}],
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "tls_certificate_path": str(certificate),
            "tls_private_key_path": str(key),
            "listeners": [client | {"port": self.port}, federation | {"port": self._federation_port, "tls": True}],
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "synapse.db")}},
            "rc_message": free,
            "rc_registration": free,
            "rc_login": {"address": free, "account": free, "failed_attempts": free},
            "rc_joins": {"local": free, "remote": free},
            "rc_joins_per_room": free,
            "rc_invites": {"per_room": free, "per_user": free, "per_issuer": free},
            "rc_room_creation": free,
            "rc_federation": {"sleep_limit": 100_000, "reject_limit": 100_000, "concurrent": 100},
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s"},
        }
        (self.directory / "homeserver.yaml").write_text(yaml.safe_dump(settings))
        command = [*self.command(), "--generate-keys"]
        subprocess.run(command, check=True, capture_output=True, cwd=self.directory)


def reaches(server_name: str) -> bool:
    """Whether the federation listener answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    url = f"https://{server_name}/_matrix/federation/v1/version"
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return bool(answer.status == 200)
