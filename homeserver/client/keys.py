"""End-to-end encryption keys of devices: upload, query, claim and changes."""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.keys.lookup import MAX_TIMEOUT_MS, KeyLookup
from homeserver.keys.publish import KeyPublisher
from homeserver.sync.tokens import since
from homeserver.web.call import Call, Requester
from homeserver.web.routes import Auth, Route
from storage.log.append import Log

DEFAULT_TIMEOUT_MS = 10_000


class UploadRequest(msgspec.Struct):
    """`POST /keys/upload`. The second name of the fallback keys is what clients sent before they were standard."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    unstable_fallback_keys: dict[str, Any] | None = msgspec.field(
        name="org.matrix.msc2732.fallback_keys", default=None
    )


class QueryRequest(msgspec.Struct):
    """`POST /keys/query`."""

    device_keys: dict[str, list[str]]
    timeout: int = DEFAULT_TIMEOUT_MS


class ClaimRequest(msgspec.Struct):
    """`POST /keys/claim`."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: int = DEFAULT_TIMEOUT_MS


class Keys:
    """The endpoints of `keys.yaml` (Client-Server API, "Key management API")."""

    def __init__(
        self, publisher: KeyPublisher, lookup: KeyLookup, changes: DeviceListChanges, log: Log
    ) -> None:
        self._publisher = publisher
        self._lookup = lookup
        self._changes = changes
        self._log = log

    def routes(self) -> list[Route]:
        """The routes of this module."""
        return [
            Route("POST", "/_matrix/client/v3/keys/upload", self.upload, Auth.GUEST),
            # The path of older clients; the device they name has to be their own.
            Route("POST", "/_matrix/client/v3/keys/upload/{deviceId}", self.upload, Auth.GUEST),
            Route("POST", "/_matrix/client/v3/keys/query", self.query, Auth.GUEST),
            Route("POST", "/_matrix/client/v3/keys/claim", self.claim, Auth.GUEST),
            Route("GET", "/_matrix/client/v3/keys/changes", self.changes),
        ]

    async def upload(self, call: Call) -> dict[str, Any]:
        """Publish identity, one-time and fallback keys of the requesting device."""
        requester = call.requester
        device_id = device_of(requester)
        if call.params.get("deviceId", device_id) != device_id:
            raise MatrixError(400, "M_INVALID_PARAM", "Keys can only be uploaded for the device of the access token")
        body = call.json(UploadRequest)
        fallback = body.fallback_keys if body.fallback_keys is not None else body.unstable_fallback_keys
        counts = await self._publisher.upload(
            requester.user_id, device_id, body.device_keys, body.one_time_keys or {}, fallback or {}
        )
        return {"one_time_key_counts": counts}

    async def query(self, call: Call) -> dict[str, Any]:
        """Device and cross-signing keys of the users named."""
        body = call.json(QueryRequest)
        timeout = min(max(body.timeout, 0), MAX_TIMEOUT_MS)
        return await self._lookup.query(call.requester.user_id, body.device_keys, timeout)

    async def claim(self, call: Call) -> dict[str, Any]:
        """One one-time (or fallback) key of each device named."""
        body = call.json(ClaimRequest)
        timeout = min(max(body.timeout, 0), MAX_TIMEOUT_MS)
        return await self._lookup.claim(body.one_time_keys, timeout)

    def changes(self, call: Call) -> dict[str, Any]:
        """Users whose keys changed between two sync tokens, and those whose keys no longer matter.

        As the specification allows, `to` is not a limit: what came after it is reported as well.
        """
        from_token, to_token = call.query("from"), call.query("to")
        if not from_token or not to_token:
            raise MatrixError(400, "M_MISSING_PARAM", "'from' and 'to' have to be given")
        log = self._log
        since(to_token, log.epoch, log.position)
        start = since(from_token, log.epoch, log.position)
        after = 0 if start is None else start.position
        with log.snapshot() as snapshot:
            changed, left = self._changes.between(snapshot, call.requester.user_id, after, log.position)
        return {"changed": changed, "left": left}


def device_of(requester: Requester) -> str:
    """The device of the access token. Raises MatrixError 400 when the token has none (application services)."""
    if requester.device_id is None:
        raise MatrixError(400, "M_INVALID_PARAM", "This needs an access token that belongs to a device")
    return requester.device_id
