"""Keys of our users' devices. Server-Server API, "End-to-End Encryption"."""

from typing import Any

from federation.inbound.operation import Operation, PeerRequest
from federation.inbound.ports import KnowsUsers
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id, server_name_of

V1 = "/_matrix/federation/v1"
MAX_USERS = 1000


class UserKeyEndpoints:
    """Operations of `user_keys.yaml`. Questions about users who are not ours are refused, whatever is cached."""

    def __init__(self, server_name: str, users: KnowsUsers) -> None:
        self._server_name = server_name
        self._users = users

    def operations(self) -> list[Operation]:
        """The operations."""
        return [
            Operation("POST", V1 + "/user/keys/query", self.query),
            Operation("POST", V1 + "/user/keys/claim", self.claim),
        ]

    async def query(self, request: PeerRequest) -> Any:
        """Device and cross-signing keys."""
        asked = self._users_in(request.object(), "device_keys")
        for device_ids in asked.values():
            if not isinstance(device_ids, list) or not all(isinstance(id_, str) for id_ in device_ids):
                raise MatrixError(400, "M_BAD_JSON", "device_keys has lists of device IDs")
        answer = await self._users.query_keys(asked)
        return {name: keys for name, keys in answer.items() if name != "failures"}

    async def claim(self, request: PeerRequest) -> Any:
        """One-time keys."""
        asked = self._users_in(request.object(), "one_time_keys")
        for devices in asked.values():
            if not isinstance(devices, dict) or not all(isinstance(name, str) for name in devices.values()):
                raise MatrixError(400, "M_BAD_JSON", "one_time_keys has algorithms by device ID")
        return await self._users.claim_keys(asked)

    def _users_in(self, content: dict[str, Any], name: str) -> dict[str, Any]:
        asked = content.get(name)
        if not isinstance(asked, dict):
            raise MatrixError(400, "M_BAD_JSON", f"{name} is an object")
        if len(asked) > MAX_USERS:
            raise MatrixError(400, "M_INVALID_PARAM", "Too many users in one request")
        for user_id in asked:
            if not is_valid_user_id(user_id) or server_name_of(user_id) != self._server_name:
                raise MatrixError(403, "M_FORBIDDEN", "Only keys of users of this server are given out")
        return asked
