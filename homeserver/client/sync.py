"""``GET /_matrix/client/v3/sync`` (Client-Server API, "Syncing")."""

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from federation.rules.errors import MatrixError
from homeserver.ephemeral.presence import ONLINE, Presence
from homeserver.sync import tokens
from homeserver.sync.assemble import AnyBody
from homeserver.sync.filter_store import FilterStore
from homeserver.sync.filters import SyncFilter
from homeserver.sync.longpoll import MAX_TIMEOUT_MS, LongPoll
from homeserver.sync.scope import SyncRequest
from homeserver.web.call import Answer, Call
from homeserver.web.router import Auth, Route
from storage.log.append import Log

MAX_REMEMBERED = 10_000
MAX_REMEMBERED_QUERY = 512
_SINCE = re.compile(r"(?:^|&)since=([A-Za-z0-9_-]{1,80})(?=&|$)", re.ASCII)
"""The parameter as our own tokens make it. Anything else is left to the proper reading of the query."""


class Asked(NamedTuple):
    """What the query of a sync asks for, but for its ``since``."""

    filter: SyncFilter
    full_state: bool
    use_state_after: bool
    presence: str
    timeout_ms: int


class Sync:
    """The endpoint of `sync.yaml`."""

    def __init__(
        self, log: Log, longpoll: LongPoll, filters: FilterStore, presence: Presence, now_ms: Callable[[], int]
    ) -> None:
        self._log = log
        self._longpoll = longpoll
        self._filters = filters
        self._presence = presence
        self._now_ms = now_ms
        self._asked: OrderedDict[tuple[str, str], Asked] = OrderedDict()

    def routes(self) -> list[Route]:
        """The routes of this module."""
        return [Route("GET", "/_matrix/client/v3/sync", self.sync, auth=Auth.GUEST)]

    def sync(self, call: Call) -> "Answer | Deferred[Answer]":
        """Everything new for the requesting device."""
        query = call.raw_query
        found = _SINCE.search(query)
        if found is None:
            return self._sync_new(call)
        # A client repeats its query with another token: the rest of it was read before.
        key = (call.requester.user_id, query[: found.start()] + query[found.end() :])
        asked = self._asked.get(key)
        if asked is None:
            return self._sync_new(call, key)
        return self._start(call, asked, found[1])

    def _sync_new(self, call: Call, key: tuple[str, str] | None = None) -> "Answer | Deferred[Answer]":
        """A query that was not read before; to be remembered under ``key``."""
        user_id, given = call.requester.user_id, call.query("filter")
        timeout_ms = call.query_int("timeout", 0, 0, MAX_TIMEOUT_MS)
        presence = call.query("set_presence", ONLINE)
        if presence not in ("online", "unavailable", "offline"):
            raise MatrixError(400, "M_INVALID_PARAM", "set_presence has to be online, unavailable or offline")
        full_state, use_state_after = call.query_bool("full_state"), call.query_bool("use_state_after")
        since = call.query("since")

        def start(wanted: SyncFilter) -> "Answer | Deferred[Answer]":
            asked = Asked(wanted, full_state, use_state_after, presence, timeout_ms)
            if key is not None and len(key[1]) <= MAX_REMEMBERED_QUERY:
                _keep(self._asked, key, asked)
            return self._start(call, asked, since)

        ready = self._filters.ready(user_id, given)
        if ready is not None:
            return start(ready)
        return Deferred.fromCoroutine(self._filters.get(user_id, given)).addCallback(start)

    def _start(self, call: Call, asked: Asked, since: str | None) -> "Answer | Deferred[Answer]":
        requester = call.requester
        after = tokens.since(since, self._log.epoch, self._log.position)
        request = SyncRequest(
            requester.user_id,
            requester.device_id,
            after,
            asked.filter,
            asked.full_state,
            asked.use_state_after,
            self._now_ms(),
        )
        device = requester.device_id or ""
        self._presence.sync_started(requester.user_id, device, asked.presence)

        def answered(body: AnyBody) -> Answer:
            self._presence.sync_ended(requester.user_id, device, asked.presence)
            return Answer(200, body.dump())

        def failed(failure: Failure) -> Failure:
            self._presence.sync_ended(requester.user_id, device, asked.presence)
            return failure

        try:
            body = self._longpoll.answer(request, asked.timeout_ms, call)
        except BaseException:
            self._presence.sync_ended(requester.user_id, device, asked.presence)
            raise
        if isinstance(body, Deferred):
            return body.addCallbacks(answered, failed)
        return answered(body)


def _keep(remembered: "OrderedDict[tuple[str, str], Asked]", key: tuple[str, str], asked: Asked) -> None:
    remembered[key] = asked
    if len(remembered) > MAX_REMEMBERED:
        remembered.popitem(last=False)
