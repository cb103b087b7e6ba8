"""Filters: store one, read one back (Client-Server API, "Filtering")."""

from typing import Any

from federation.rules.errors import MatrixError
from homeserver.sync.filter_store import MAX_FILTER_BYTES, FilterStore
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class Filter:
    """The endpoints of `filter.yaml`."""

    def __init__(self, filters: FilterStore) -> None:
        self._filters = filters

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/user/{userId}/filter"
        return [
            Route("POST", path, self.define_filter, auth=Auth.GUEST, body_limit=2 * MAX_FILTER_BYTES),
            Route("GET", path + "/{filterId}", self.get_filter, auth=Auth.GUEST),
        ]

    async def define_filter(self, call: Call) -> dict[str, Any]:
        """Store a filter for the requesting user."""
        user_id = own_user(call)
        return {"filter_id": await self._filters.store(user_id, call.json_object())}

    async def get_filter(self, call: Call) -> dict[str, Any]:
        """A filter as it was stored."""
        return await self._filters.json(own_user(call), call.params["filterId"])


def own_user(call: Call) -> str:
    """The user of the path, who has to be the requester. Raises MatrixError 403 ``M_FORBIDDEN``."""
    user_id = call.params["userId"]
    if user_id != call.requester.user_id:
        raise MatrixError(403, "M_FORBIDDEN", "This can only be done for yourself")
    return user_id
