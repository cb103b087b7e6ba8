"""Room tags (Client-Server API, "Room Tagging")."""

from typing import Any

from homeserver.accounts.account_data import AccountData
from homeserver.client.account_data import own_room
from homeserver.web.call import Call
from homeserver.web.router import Route


class TagEndpoints:
    """Routes of `tags.yaml`."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags"
        return [
            Route("GET", path, self.list),
            Route("PUT", f"{path}/{{tag}}", self.put, body_limit=16_384),
            Route("DELETE", f"{path}/{{tag}}", self.delete),
        ]

    def list(self, call: Call) -> dict[str, Any]:
        """The tags of a room."""
        return {"tags": self._account_data.tags(*own_room(call))}

    async def put(self, call: Call) -> dict[str, Any]:
        """Add or replace a tag."""
        await self._account_data.put_tag(*own_room(call), call.params["tag"], call.json_object())
        return {}

    async def delete(self, call: Call) -> dict[str, Any]:
        """Remove a tag."""
        waiting = self._account_data.delete_tag(*own_room(call), call.params["tag"])
        if waiting is not None:
            await waiting
        return {}
