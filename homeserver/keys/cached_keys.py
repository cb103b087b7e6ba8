"""Keys of other servers' users from our copy where there is one; what is missing is asked for and kept.

Only users who share a room with us are kept, because only of their changes we are told (``peer_devices``).
"""

from typing import Any

import orjson
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from federation.rules.errors import MatrixError
from federation.wire.errors import PeerUnreachable
from homeserver.keys.key_cache import join_devices
from homeserver.keys.peer_devices import PeerDevices
from homeserver.keys.remote import RemoteAnswer, RemoteKeys
from homeserver.keys.remote_keys import failure_of, seconds_of
from homeserver.keys.remote_shapes import device_list
from homeserver.keys.resync import Resync
from homeserver.keys.tracked import Tracked
from storage.log.remote_devices import RemoteDevices
from storage.tables.one_time_keys import Wanted

LISTS_AT_ONCE = 10
"""Up to so many missing lists of one server are fetched one by one, with their version; more in one request."""

Wish = dict[str, list[str]]
"""User ID to device IDs; an empty list means all."""


class CachedKeys:
    """The port `RemoteKeys`: ``live`` asks, ``devices`` remembers."""

    def __init__(
        self, live: RemoteKeys, devices: PeerDevices, resync: Resync, tracked: Tracked, clock: IReactorTime
    ) -> None:
        self._live = live
        self._devices = devices
        self._resync = resync
        self._tracked = tracked
        self._clock: Any = clock

    async def query(self, server: str, devices: Wish, timeout_ms: int) -> RemoteAnswer:
        """Device and cross-signing keys; answers within the time, whatever the other server does."""
        known: list[RemoteDevices] = []
        missing: Wish = {}
        strangers: Wish = {}
        for user_id, wanted in devices.items():
            if not self._tracked(user_id):
                strangers[user_id] = wanted
            elif (row := self._devices.get(user_id)) is not None and row.loaded and not row.stale:
                known.append(row)
            else:
                missing[user_id] = wanted
        if len(missing) > LISTS_AT_ONCE:
            answer = await self._ask_all(server, missing, strangers, timeout_ms)
        else:
            answer = await self._ask_each(server, missing, strangers, timeout_ms, known)
        keys = answer.keys
        if answer.failure is not None:
            # What was known before is better than nothing; the failure tells that it may be out of date.
            known += [row for user_id in missing if (row := self._devices.get(user_id)) is not None and row.loaded]
        for row in known:
            _put(keys, row, devices[row.user_id])
        return RemoteAnswer(keys, answer.failure)

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        """One-time keys are never kept."""
        return await self._live.claim(server, wanted, timeout_ms)

    async def _ask_all(self, server: str, missing: Wish, strangers: Wish, timeout_ms: int) -> RemoteAnswer:
        """One request for everybody; what it tells of the missing ones is kept without a version."""
        marks = {user_id: _marks(self._devices.get(user_id)) for user_id in missing}
        answer = await self._live.query(server, {user_id: [] for user_id in missing} | strangers, timeout_ms)
        found = answer.keys.get("device_keys", {})
        for user_id in missing:
            if user_id in found and self._tracked(user_id):
                self._keep(user_id, answer.keys, marks[user_id])
            if user_id in found and missing[user_id]:
                found[user_id] = {name: found[user_id][name] for name in missing[user_id] if name in found[user_id]}
        return answer

    def _keep(self, user_id: str, keys: dict[str, Any], marks: int) -> None:
        devices = [
            (device_id, value, (value.get("unsigned") or {}).get("device_display_name"))
            for device_id, value in keys["device_keys"][user_id].items()
        ]
        master, self_signing = (keys.get(name, {}).get(user_id) for name in ("master_keys", "self_signing_keys"))
        try:
            self._devices.store(user_id, device_list(user_id, None, devices, master, self_signing), marks)
        except MatrixError:
            return  # too long to be kept

    async def _ask_each(
        self, server: str, missing: Wish, strangers: Wish, timeout_ms: int, known: list[RemoteDevices]
    ) -> RemoteAnswer:
        """Every missing list, all at the same time; those that the server refuses are asked for with the strangers."""
        fetched = [self._in_time(self._resync.now(user_id), timeout_ms) for user_id in missing]
        failure = None
        ask = dict(strangers)
        for user_id, outcome in zip(missing, await gatherResults(fetched), strict=True):
            if isinstance(outcome, RemoteDevices):
                known.append(outcome)
            elif isinstance(outcome, MatrixError):
                ask[user_id] = missing[user_id]
            else:
                failure = failure_of(outcome, seconds_of(timeout_ms))
        if not ask:
            return RemoteAnswer({}, failure)
        answer = await self._live.query(server, ask, timeout_ms)
        return RemoteAnswer(answer.keys, failure or answer.failure)

    def _in_time(self, fetched: "Deferred[RemoteDevices]", timeout_ms: int) -> "Deferred[Any]":
        """The list, or the exception that came instead."""
        fetched.addTimeout(seconds_of(timeout_ms), self._clock)
        return fetched.addErrback(_expected)


def _expected(failure: Failure) -> BaseException:
    failure.trap(MatrixError, PeerUnreachable, TimeoutError, CancelledError)
    assert failure.value is not None
    return failure.value


def _marks(row: RemoteDevices | None) -> int:
    return 0 if row is None else row.marks


def _put(keys: dict[str, Any], row: RemoteDevices, wanted: list[str]) -> None:
    """Add what is asked for of a user."""
    devices = {name: row.devices[name] for name in wanted if name in row.devices} if wanted else row.devices
    keys.setdefault("device_keys", {})[row.user_id] = orjson.Fragment(join_devices(devices))
    for field, value in (("master_keys", row.master), ("self_signing_keys", row.self_signing)):
        if value is not None:
            keys.setdefault(field, {})[row.user_id] = orjson.loads(value)


