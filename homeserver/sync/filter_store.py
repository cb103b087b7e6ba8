"""Filters by name: stored in the database, kept parsed in memory for those who sync."""

from collections import OrderedDict
from hashlib import sha256
from typing import Any

import orjson

from federation.rules.errors import MatrixError
from homeserver.sync.filters import EVERYTHING, SyncFilter, parse_filter
from storage.tables import filters as table
from storage.tables.database import Database

MAX_FILTERS = 500
MAX_FILTER_BYTES = 64 * 1024
CACHE_SIZE = 2_000


class FilterStore:
    """Stored filters and inline ones, checked and parsed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored: OrderedDict[tuple[str, str], SyncFilter] = OrderedDict()
        self._inline: OrderedDict[str, SyncFilter] = OrderedDict()

    async def store(self, user_id: str, value: dict[str, Any]) -> str:
        """Check and keep a filter; the same filter has the same id.

        Raises MatrixError 400 for a filter that is invalid or too big, or when the user has too many.
        """
        parsed = parse_filter(value)
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        if len(text) > MAX_FILTER_BYTES:
            raise MatrixError(400, "M_TOO_LARGE", "The filter is too large")
        if b"\\u0000" in text:
            raise MatrixError(400, "M_BAD_JSON", "NUL characters are not allowed in a filter")
        # Starts with a letter, so that it can never be taken for inline JSON.
        filter_id = "f" + sha256(text).hexdigest()[:20]
        key = (user_id, filter_id)
        if key not in self._stored:
            stored = await self._database.run_single(
                lambda cur: table.store_filter(cur, user_id, filter_id, text.decode(), MAX_FILTERS)
            )
            if not stored:
                raise MatrixError(400, "M_LIMIT_EXCEEDED", "Too many filters are stored for this user")
            _keep(self._stored, key, parsed)
        return filter_id

    async def json(self, user_id: str, filter_id: str) -> dict[str, Any]:
        """A stored filter as it was given. Raises MatrixError 404 ``M_NOT_FOUND``."""
        text = None
        if "\0" not in filter_id:
            text = await self._database.run_single(lambda cur: table.stored_filter(cur, user_id, filter_id))
        if text is None:
            raise MatrixError(404, "M_NOT_FOUND", "No such filter")
        return orjson.loads(text)

    def ready(self, user_id: str, given: str | None) -> SyncFilter | None:
        """The filter that a request names or carries, if that needs no reading from the database."""
        if not given:
            return EVERYTHING
        if given.startswith("{"):
            return self._parse_inline(given)
        return self._stored.get((user_id, given))

    async def get(self, user_id: str, given: str | dict[str, Any] | None) -> SyncFilter:
        """The filter that a request names (an id) or carries (JSON text or an object).

        Raises MatrixError 400 for a filter that is invalid or unknown.
        """
        if isinstance(given, dict):
            return parse_filter(given)
        found = self.ready(user_id, given)
        if found is None:
            assert given is not None
            try:
                found = parse_filter(await self.json(user_id, given))
            except MatrixError as error:
                if error.status != 404:
                    raise
                raise MatrixError(400, "M_INVALID_PARAM", "No such filter") from error
            _keep(self._stored, (user_id, given), found)
        return found

    def _parse_inline(self, text: str) -> SyncFilter:
        found = self._inline.get(text)
        if found is None:
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError:
                raise MatrixError(400, "M_NOT_JSON", "The filter is not valid JSON") from None
            found = parse_filter(value)
            if len(text) < 4096:
                _keep(self._inline, text, found)
        return found


def _keep(cache: "OrderedDict[Any, SyncFilter]", key: Any, value: SyncFilter) -> None:
    cache[key] = value
    if len(cache) > CACHE_SIZE:
        cache.popitem(last=False)
