"""The user directory (Client-Server API, "User Directory")."""

from typing import Any, Protocol

import msgspec
import orjson

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.web.call import Call
from homeserver.web.router import Route
from storage.tables import profiles
from storage.tables.database import Database

DEFAULT_LIMIT = 10
MAX_LIMIT = 50
MAX_TERM = 255
MAX_CANDIDATES = 500
"""Matches that are looked at for one answer; a search for one letter does not walk through all accounts."""


class UserVisibility(Protocol):
    """Knows who may find whom."""

    def visible_to(self, searcher: str, user_id: str) -> bool:
        """The two share a room, or ``user_id`` is in a public or world-readable one."""


class SearchRequest(msgspec.Struct):
    """The body of `POST /user_directory/search`."""

    search_term: str
    limit: int | None = None


class UserDirectoryEndpoints:
    """Routes of `users.yaml`. Local users only until federation brings others."""

    def __init__(self, database: Database, visibility: UserVisibility, config: Config) -> None:
        self._database = database
        self._visibility = visibility
        self._config = config

    def routes(self) -> list[Route]:
        """The routes."""
        return [
            Route("POST", "/_matrix/client/v3/user_directory/search", self.search, limit="user_directory")
        ]

    async def search(self, call: Call) -> dict[str, Any]:
        """People whose name or ID contains the term and whom the caller may see, best first."""
        request = call.json(SearchRequest)
        if request.limit is not None and request.limit < 1:
            raise MatrixError(400, "M_INVALID_PARAM", "`limit` has to be at least 1")
        limit = min(request.limit or DEFAULT_LIMIT, MAX_LIMIT)
        settings = self._config.user_directory
        term = request.search_term.strip().lower()[:MAX_TERM]
        if not settings.enabled or not term:
            return {"results": [], "limited": False}
        rows = await self._database.run_single(lambda cur: profiles.search_profiles(cur, term, MAX_CANDIDATES))
        searcher = call.requester.user_id
        found: list[dict[str, Any]] = []
        for row in rows:
            if not settings.search_all_users and not self._visibility.visible_to(searcher, row.user_id):
                continue
            if len(found) == limit:
                return {"results": found, "limited": True}
            found.append(_result(row.user_id, orjson.loads(row.fields)))
        return {"results": found, "limited": len(rows) == MAX_CANDIDATES}


def _result(user_id: str, profile: dict[str, Any]) -> dict[str, Any]:
    result = {"user_id": user_id}
    if isinstance(profile.get("displayname"), str):
        result["display_name"] = profile["displayname"]
    if isinstance(profile.get("avatar_url"), str):
        result["avatar_url"] = profile["avatar_url"]
    return result
