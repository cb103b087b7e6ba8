"""Account data and room tags: what a user's clients keep here, for the account or for one room.

It lives in the log, so that every device learns of a change by its position.
"""

from typing import Any

import orjson
from twisted.internet.defer import Deferred

from federation.rules.errors import MatrixError
from storage.log import account_data
from storage.log.append import Log

MAX_CONTENT_BYTES = 65_536
MAX_TYPE_BYTES = 255
MAX_TAG_BYTES = 255
MAX_TAGS = 100
TAGS = "m.tag"

RESERVED = {
    "m.fully_read": "Read markers are set with /read_markers",
    "m.push_rules": "Push rules are set with /pushrules",
}
"""Types that the server keeps itself (Client-Server API, "Server behaviour" of "Client Config")."""


class AccountData:
    """Account data of local users; ``room_id`` is ``""`` for that of the account."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def get(self, user_id: str, room_id: str, type_: str) -> bytes:
        """The content as JSON bytes. Raises MatrixError 404 M_NOT_FOUND."""
        datum = account_data.datum(self._log, user_id, room_id, type_)
        if datum is None:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such account data")
        return datum.content

    def put(self, user_id: str, room_id: str, type_: str, content: dict[str, Any]) -> "Deferred[int]":
        """Replace the content; fires when it is durable.

        Raises MatrixError 405 M_BAD_JSON for types that the server keeps itself, 400 for what is too long.
        """
        if type_ in RESERVED:
            raise MatrixError(405, "M_BAD_JSON", RESERVED[type_])
        size = len(type_.encode("utf-8", "surrogatepass"))
        if not 0 < size <= MAX_TYPE_BYTES:
            raise MatrixError(400, "M_INVALID_PARAM", f"The type has to have 1 to {MAX_TYPE_BYTES} bytes")
        return self._store(user_id, room_id, type_, content)

    def tags(self, user_id: str, room_id: str) -> dict[str, Any]:
        """The tags of a room, by name."""
        datum = account_data.datum(self._log, user_id, room_id, TAGS)
        tags = orjson.loads(datum.content).get("tags") if datum is not None else None
        return tags if isinstance(tags, dict) else {}

    def put_tag(self, user_id: str, room_id: str, tag: str, value: dict[str, Any]) -> "Deferred[int]":
        """Add or replace a tag. Raises MatrixError 400 for names and orders outside the limits."""
        size = len(tag.encode("utf-8", "surrogatepass"))
        if not 0 < size <= MAX_TAG_BYTES:
            raise MatrixError(400, "M_INVALID_PARAM", f"Tags have 1 to {MAX_TAG_BYTES} bytes")
        check_order(value)
        tags = self.tags(user_id, room_id)
        if tag not in tags and len(tags) >= MAX_TAGS:
            raise MatrixError(400, "M_LIMIT_EXCEEDED", f"A room has at most {MAX_TAGS} tags")
        return self._store(user_id, room_id, TAGS, {"tags": {**tags, tag: value}})

    def delete_tag(self, user_id: str, room_id: str, tag: str) -> "Deferred[int] | None":
        """Remove a tag; None when it was not there."""
        tags = self.tags(user_id, room_id)
        if tag not in tags:
            return None
        del tags[tag]
        return self._store(user_id, room_id, TAGS, {"tags": tags})

    def _store(self, user_id: str, room_id: str, type_: str, content: dict[str, Any]) -> "Deferred[int]":
        encoded = orjson.dumps(content)
        if len(encoded) > MAX_CONTENT_BYTES:
            raise MatrixError(413, "M_TOO_LARGE", f"Account data has at most {MAX_CONTENT_BYTES} bytes for each type")
        batch = self._log.begin()
        account_data.put_datum(batch, user_id, room_id, type_, encoded)
        return self._log.append(batch)


def check_order(value: dict[str, Any]) -> None:
    """A tag's ``order`` is a number from 0 to 1, or absent. Raises MatrixError 400 M_BAD_JSON."""
    order = value.get("order")
    if order is None:
        return
    if isinstance(order, bool) or not isinstance(order, int | float) or not 0 <= order <= 1:
        raise MatrixError(400, "M_BAD_JSON", "`order` has to be a number from 0 to 1")
