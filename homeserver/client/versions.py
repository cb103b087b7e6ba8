"""`/versions` (Client-Server API, "API Versions")."""

from collections.abc import Mapping
from typing import Any

from homeserver.web.call import Call
from homeserver.web.router import Auth, Route

NEWEST_MINOR = 19

VERSIONS = tuple(f"v1.{minor}" for minor in range(1, NEWEST_MINOR + 1))
"""What is not built of them answers `M_UNRECOGNIZED`; what is built behaves as the newest says."""


class VersionsEndpoints:
    """Routes of `versions.yaml`. ``unstable_features`` is put together by whoever wires the features that are built."""

    def __init__(self, unstable_features: Mapping[str, bool] | None = None) -> None:
        self._body = {"versions": list(VERSIONS), "unstable_features": dict(unstable_features or {})}

    def routes(self) -> list[Route]:
        """The routes. The answer is the same for everybody, so a token is not even looked at."""
        return [Route("GET", "/_matrix/client/versions", self.versions, Auth.NONE)]

    def versions(self, call: Call) -> dict[str, Any]:
        """The specification's versions that this server speaks."""
        return self._body
