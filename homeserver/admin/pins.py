"""Forgetting what was pinned of a domain's well-known record, when its operator has lost the key."""

from typing import Any

from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.wire.resolver import Resolver
from homeserver.admin.operator_socket import PREFIX
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route
from storage.tables import well_known_pins
from storage.tables.database import Database


class PinOperations:
    """``folkmoot well-known forget``, on the side of the server."""

    def __init__(self, database: Database, resolver: Resolver) -> None:
        self._database = database
        self._resolver = resolver

    def routes(self) -> list[Route]:
        """The route."""
        return [Route("DELETE", f"{PREFIX}/pins/{{server}}", self.forget, Auth.NONE)]

    async def forget(self, call: Call) -> dict[str, Any]:
        """Take the domain as one that was never seen: the next good record pins it. MatrixError 400, 404."""
        parsed = parse_server_name(call.params["server"])
        if parsed is None:
            raise MatrixError(400, "M_INVALID_PARAM", "Not a server name")
        host = parsed.host
        known = await self._database.run(lambda cur: well_known_pins.delete_pin(cur, host))
        self._resolver.forget(host)
        if not known:
            raise MatrixError(404, "M_NOT_FOUND", f"Nothing is pinned of {host}")
        return {"server_name": host}
