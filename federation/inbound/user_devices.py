"""GET /user/devices. Server-Server API, "Device Management"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import KnowsUsers
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id, server_name_of


class UserDeviceEndpoints:
    """Operations of `user_devices.yaml`."""

    def __init__(self, server_name: str, users: KnowsUsers) -> None:
        self._server_name = server_name
        self._users = users

    def operations(self) -> list[Operation]:
        """The operations."""
        return [Operation("GET", "/_matrix/federation/v1/user/devices/{userId}", self.devices)]

    async def devices(self, request: PeerRequest) -> Any:
        """Devices and cross-signing keys of one of our users."""
        user_id = request.params["userId"]
        if not is_valid_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise MatrixError(400, "M_INVALID_PARAM", "That user is not of this server")
        return await self._users.devices(user_id)
