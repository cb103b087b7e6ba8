"""``GET /_matrix/client/v3/sync`` (Client-Server API, "Syncing")."""

from collections.abc import Callable

from federation.rules.errors import MatrixError
from homeserver.ephemeral.presence import ONLINE, Presence
from homeserver.sync import tokens
from homeserver.sync.filter_store import FilterStore
from homeserver.sync.longpoll import MAX_TIMEOUT_MS, LongPoll
from homeserver.sync.scope import SyncRequest
from homeserver.web.call import Answer, Call
from homeserver.web.router import Auth, Route
from storage.log.append import Log


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

    def routes(self) -> list[Route]:
        """The routes of this module."""
        return [Route("GET", "/_matrix/client/v3/sync", self.sync, auth=Auth.GUEST)]

    async def sync(self, call: Call) -> Answer:
        """Everything new for the requesting device."""
        requester = call.requester
        timeout = call.query_int("timeout", 0, 0, MAX_TIMEOUT_MS)
        state = call.query("set_presence", ONLINE)
        if state not in ("online", "unavailable", "offline"):
            raise MatrixError(400, "M_INVALID_PARAM", "set_presence has to be online, unavailable or offline")
        given = call.query("filter")
        wanted = self._filters.ready(requester.user_id, given)
        request = SyncRequest(
            requester.user_id,
            requester.device_id,
            tokens.since(call.query("since"), self._log.epoch, self._log.position),
            wanted if wanted is not None else await self._filters.get(requester.user_id, given),
            call.query_bool("full_state"),
            call.query_bool("use_state_after"),
            self._now_ms(),
        )
        device = requester.device_id or ""
        self._presence.sync_started(requester.user_id, device, state)
        try:
            body = await self._longpoll.answer(request, timeout, call)
        finally:
            self._presence.sync_ended(requester.user_id, device, state)
        return Answer(200, body.dump())
