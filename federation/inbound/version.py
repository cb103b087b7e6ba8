"""What software this is (OpenAPI: version). Anybody may ask."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest


class Version:
    """``GET /_matrix/federation/v1/version``."""

    def __init__(self, version: str) -> None:
        self._answer = {"server": {"name": "Folkmoot", "version": version}}

    def operations(self) -> list[Operation]:
        """What is answered here."""
        return [Operation("GET", "/_matrix/federation/v1/version", self.get_version, signed=False)]

    async def get_version(self, _request: PeerRequest) -> dict[str, Any]:
        """Specification: Server-Server API, "Server implementation"."""
        return self._answer
