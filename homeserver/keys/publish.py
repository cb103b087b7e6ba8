"""A device publishes its keys: `/keys/upload`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson
from psycopg2.extensions import cursor as Cursor
from twisted.internet.defer import Deferred

from federation.rules.errors import MatrixError
from homeserver.keys.device_lists import record_change
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.shapes import device_keys_text, named_keys
from homeserver.keys.signing_checks import same_but_signatures
from storage.tables.database import Database
from storage.tables.device_keys import lock_device, store_device_keys
from storage.tables.fallback_keys import store_fallback_keys
from storage.tables.one_time_keys import NamedKey, add_one_time_keys, key_counts, one_time_keys_of
from storage.tables.signatures import delete_signatures_of

MAX_ONE_TIME_KEYS = 5000
"""Unclaimed keys that one device may have lying here."""


class Outbox(Protocol):
    """Brings changes to the log; see :mod:`homeserver.keys.outbox_follower`."""

    def drained(self) -> "Deferred[None]":
        """Fires when all that was committed before this call is in the log."""


class KeyPublisher:
    """Stores the keys of local devices."""

    def __init__(
        self,
        database: Database,
        keys: KeyCache,
        counts: KeyCountCache,
        outbox: Outbox,
        announce_counts: Callable[[str, str], None],
    ) -> None:
        self._database = database
        self._keys = keys
        self._counts = counts
        self._outbox = outbox
        self._announce_counts = announce_counts

    async def upload(
        self,
        user_id: str,
        device_id: str,
        device_keys: dict[str, Any] | None,
        one_time_keys: dict[str, Any],
        fallback_keys: dict[str, Any],
    ) -> dict[str, int]:
        """Keep what a device uploads, all or nothing; returns its unclaimed one-time keys by algorithm.

        Raises MatrixError 400 for malformed keys, for a one-time key whose name stands for another key already, for more
        than `MAX_ONE_TIME_KEYS` of them, and for two fallback keys of one algorithm.
        """
        text = device_keys_text(device_keys, user_id, device_id) if device_keys is not None else None
        one_time = named_keys(one_time_keys, "one_time_keys")
        fallback = named_keys(fallback_keys, "fallback_keys")
        if len({key.algorithm for key in fallback}) != len(fallback):
            raise MatrixError(400, "M_INVALID_PARAM", "At most one fallback key for each algorithm")
        if text is None and not one_time and not fallback:
            return (await self._counts.get(user_id, device_id)).one_time
        changed = await self._database.run(
            lambda cur: _store(cur, user_id, device_id, text, one_time, fallback)
        )
        if one_time or fallback:
            self._counts.changed(user_id, device_id)
            self._announce_counts(user_id, device_id)
        if changed:
            self._keys.changed(user_id)
            await self._outbox.drained()
        return (await self._counts.get(user_id, device_id)).one_time


def _store(
    cur: Cursor,
    user_id: str,
    device_id: str,
    device_keys: str | None,
    one_time: Sequence[NamedKey],
    fallback: Sequence[NamedKey],
) -> bool:
    """Returns whether the device's identity keys are other ones now."""
    if not lock_device(cur, user_id, device_id):
        raise MatrixError(401, "M_UNKNOWN_TOKEN", "This device was logged out", soft_logout=False)
    changed = device_keys is not None and store_device_keys(cur, user_id, device_id, device_keys)
    if changed:
        delete_signatures_of(cur, user_id, [device_id])
        record_change(cur, user_id, device_id=device_id)
    if one_time and (taken := add_one_time_keys(cur, user_id, device_id, one_time)):
        _check_same(one_time_keys_of(cur, user_id, device_id), taken)
    if one_time and sum(key_counts(cur, user_id, device_id)[0].values()) > MAX_ONE_TIME_KEYS:
        raise MatrixError(400, "M_INVALID_PARAM", f"A device keeps at most {MAX_ONE_TIME_KEYS} one-time keys here")
    if fallback:
        store_fallback_keys(cur, user_id, device_id, fallback)
    return changed


def _check_same(stored: dict[tuple[str, str], str], again: Sequence[NamedKey]) -> None:
    """A key that is sent again has to be the same one: the answer to the first upload may have been lost."""
    for key in again:
        old, new = orjson.loads(stored.get((key.algorithm, key.key_id), "null")), orjson.loads(key.key_json)
        same = same_but_signatures(old, new) if type(old) is dict and type(new) is dict else old == new
        if not same:
            name = f"{key.algorithm}:{key.key_id}"
            raise MatrixError(400, "M_INVALID_PARAM", f"One-time key {name} exists already and is another one")
