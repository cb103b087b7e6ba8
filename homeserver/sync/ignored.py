"""Whom a user ignores (Client-Server API, module "Ignoring Users"), kept for those who sync."""

from collections import OrderedDict
from collections.abc import Sequence

import orjson

from storage.log.account_data import datum
from storage.log.append import Entry, Kind
from storage.log.view import View

TYPE = "m.ignored_user_list"
MAX_USERS = 20_000
MAX_IGNORED = 10_000
_NOBODY: frozenset[str] = frozenset()


class IgnoredUsers:
    """The ignored users of each user. Follows the feed: one of its first followers."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, frozenset[str]] = OrderedDict()

    def of(self, view: View, user_id: str) -> frozenset[str]:
        """Whom the user ignores."""
        found = self._users.get(user_id)
        if found is None:
            found = self._users[user_id] = self._read(view, user_id)
            if len(self._users) > MAX_USERS:
                self._users.popitem(last=False)
        return found

    def known(self, user_id: str) -> frozenset[str] | None:
        """Whom the user ignores, if that is in memory."""
        return self._users.get(user_id)

    def follow(self, entries: Sequence[Entry]) -> None:
        """Forget what may have changed."""
        for entry in entries:
            if entry.kind == Kind.ACCOUNT_DATA and not entry.room_id:
                self._users.pop(entry.user_id, None)

    def _read(self, view: View, user_id: str) -> frozenset[str]:
        stored = datum(view, user_id, "", TYPE)
        listed = orjson.loads(stored.content).get("ignored_users") if stored is not None else None
        if not isinstance(listed, dict):
            return _NOBODY
        # Nobody can ignore themselves: they would lose their own messages.
        return frozenset(list(listed)[:MAX_IGNORED]) - {user_id}
