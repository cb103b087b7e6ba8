"""`/versions` (Client-Server API, "API Versions"): what clients may count on, and nothing that is not built."""

from typing import Any

from homeserver.web.call import Call
from homeserver.web.router import Auth, Route

VERSIONS = ("v1.1",)
"""A version promises all that it and those before it brought: the next one goes in when that is built. The first is what
clients ask for before they talk at all. See docs/decisions/0201-versions.md."""

FEATURES = (
    "org.matrix.msc2285.stable",  # private read receipts (v1.4)
    "org.matrix.msc3952_intentional_mentions",  # mentions in `m.mentions`, with their push rules (v1.7)
    "uk.tcpip.msc4133.stable",  # profiles with any field (v1.16)
)
"""Parts of later versions that are built and that clients ask for by the names they had before."""


class VersionsEndpoints:
    """Routes of `versions.yaml`."""

    def routes(self) -> list[Route]:
        """The routes. The answer is the same for everybody, so a token is not even looked at."""
        return [Route("GET", "/_matrix/client/versions", self.versions, Auth.NONE)]

    def versions(self, call: Call) -> dict[str, Any]:
        """The specification's versions that this server speaks."""
        return {"versions": list(VERSIONS), "unstable_features": dict.fromkeys(FEATURES, True)}
