"""`/.well-known/matrix/client` (Client-Server API, "Server Discovery")."""

from typing import Any

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class WellKnownEndpoints:
    """Routes of `wellknown.yaml`."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("GET", "/.well-known/matrix/client", self.client, Auth.NONE)]

    def client(self, call: Call) -> dict[str, Any]:
        """Where clients find this server; 404 when the operator has not said so (`public_baseurl`)."""
        if self._config.public_baseurl is None:
            raise MatrixError(404, "M_NOT_FOUND", "This server publishes no discovery information")
        return {
            **self._config.extra_well_known_client_content,
            "m.homeserver": {"base_url": self._config.public_baseurl},
        }
