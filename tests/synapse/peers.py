"""Folkmoot and Synapse as neighbours on loopback."""

from pathlib import Path
from typing import Any

from tests.bench.federating import FederatingFolkmoot, FederatingSynapse, reaches
from tests.bench.servers import Server

__all__ = ["FolkmootPeer", "SynapsePeer", "reaches"]

FolkmootPeer = FederatingFolkmoot


class SynapsePeer(FederatingSynapse):
    """Synapse on SQLite: durable enough for a peer, and started in a moment. Its log tells what went on."""

    def __init__(self, directory: Path, python: Path, federation_port: int) -> None:
        super().__init__(directory, python.parent.parent, federation_port)
        self._python = python

    async def start(self) -> float:
        if not (self.directory / "homeserver.yaml").exists():
            self._configure()
        return await Server.start(self)

    def logging(self) -> dict[str, Any]:
        return super().logging() | {
            "formatters": {"plain": {"format": "%(asctime)s %(name)s %(levelname)s %(message)s"}},
            "handlers": {"file": {"class": "logging.FileHandler", "formatter": "plain", "filename": "synapse.log"}},
            "root": {"level": "INFO", "handlers": ["file"]},
        }

    def settings(self) -> dict[str, Any]:
        database = {"name": "sqlite3", "args": {"database": str(self.directory / "synapse.db")}}
        return super().settings() | {"database": database}
