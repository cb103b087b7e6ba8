"""Our own keys (OpenAPI: keys_server). Anybody may ask."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.wire.own_keys import OwnKeys


class KeysServer:
    """``GET /_matrix/key/v2/server``."""

    def __init__(self, own: OwnKeys) -> None:
        self._own = own

    def operations(self) -> list[Operation]:
        """What is answered here; the form with a key id is deprecated and says the same."""
        return [
            Operation("GET", "/_matrix/key/v2/server", self.get_keys, signed=False),
            Operation("GET", "/_matrix/key/v2/server/", self.get_keys, signed=False),
            Operation("GET", "/_matrix/key/v2/server/{keyId}", self.get_keys, signed=False),
        ]

    async def get_keys(self, _request: PeerRequest) -> dict[str, Any]:
        """Specification: "Publishing Keys"."""
        return self._own.answer()
