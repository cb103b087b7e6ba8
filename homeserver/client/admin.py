"""Server administration that the specification knows (Client-Server API, "Server Administration")."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.devices import Devices
from homeserver.accounts.user_names import is_local
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route
from storage.tables import users
from storage.tables.database import Database
from storage.tables.devices import DeviceRow
from storage.tables.users import UserRow


class LockRequest(msgspec.Struct):
    """The body of `PUT /admin/lock/{userId}`."""

    locked: bool


class AdminEndpoints:
    """Routes of `admin.yaml`; suspension is not built."""

    def __init__(
        self, database: Database, devices: Devices, deactivation: Deactivation, server_name: str
    ) -> None:
        self._database = database
        self._devices = devices
        self._deactivation = deactivation
        self._server_name = server_name

    def routes(self) -> list[Route]:
        """The routes."""
        lock = "/_matrix/client/v1/admin/lock/{userId}"
        return [
            Route("GET", "/_matrix/client/v3/admin/whois/{userId}", self.whois, Auth.USER),
            Route("GET", lock, self.locked, Auth.SERVER_ADMIN),
            Route("PUT", lock, self.lock, Auth.SERVER_ADMIN),
        ]

    async def whois(self, call: Call) -> dict[str, Any]:
        """The sessions of a user: for administrators, and for everybody about themselves."""
        user_id = call.params["userId"]
        if user_id != call.requester.user_id and not call.requester.is_admin:
            raise MatrixError(403, "M_FORBIDDEN", "Only administrators of this server can ask about others")
        await self._user(user_id)
        rows = await self._devices.all_of(user_id)
        return {"user_id": user_id, "devices": {row.device_id: _sessions(row) for row in rows}}

    async def locked(self, call: Call) -> dict[str, Any]:
        """Whether an account is locked."""
        return {"locked": (await self._target(call)).locked}

    async def lock(self, call: Call) -> dict[str, Any]:
        """Lock or unlock an account."""
        wanted = call.json(LockRequest).locked
        user = await self._target(call)
        if user.user_id == call.requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "Nobody can lock themselves")
        await self._deactivation.set_locked(user.user_id, wanted)
        return {"locked": wanted}

    async def _target(self, call: Call) -> UserRow:
        user = await self._user(call.params["userId"])
        if user.is_admin and user.user_id != call.requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "That user is an administrator")
        return user

    async def _user(self, user_id: str) -> UserRow:
        if not is_local(user_id, self._server_name):
            raise MatrixError(400, "M_INVALID_PARAM", "That user does not belong to this server")
        user = await self._database.run(lambda cur: users.user_by_id(cur, user_id))
        if user is None or user.deactivated:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such user")
        return user


def _sessions(row: DeviceRow) -> dict[str, Any]:
    connections = []
    if row.last_seen_ts is not None:
        connections.append(
            {"ip": row.last_seen_ip, "last_seen": row.last_seen_ts, "user_agent": row.last_seen_user_agent}
        )
    return {"sessions": [{"connections": connections}]}
