"""Our signed well-known record (OpenAPI: wellknown). Anybody may ask; ``docs/signed-well-known.md`` describes it."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.wire.own_keys import OwnKeys


class WellKnown:
    """``GET /.well-known/matrix/server``."""

    def __init__(self, own: OwnKeys, address: str) -> None:
        """``address`` is the ``m.server`` to point to (``own_address``)."""
        self._own = own
        self._address = address

    def operations(self) -> list[Operation]:
        """What is answered here."""
        return [Operation("GET", "/.well-known/matrix/server", self.get_server, signed=False)]

    async def get_server(self, _request: PeerRequest) -> dict[str, Any]:
        """The record. A server name with a port or an address is never looked up this way, so it has none."""
        name = parse_server_name(self._own.server_name)
        if name is None or name.port is not None or name.is_ip_literal:
            raise MatrixError(404, "M_NOT_FOUND", "This server name is not delegated")
        return self._own.well_known_record(self._address)


def own_address(server_name: str, public_baseurl: str | None) -> str:
    """Where other servers reach us: the host and port of an HTTPS ``public_baseurl``, else port 443 of our name."""
    if public_baseurl is not None and public_baseurl.startswith("https://"):
        host = public_baseurl.removeprefix("https://").partition("/")[0]
        parsed = parse_server_name(host)
        if parsed is not None:
            return host if parsed.port is not None else f"{host}:443"
    return f"{server_name}:443"
