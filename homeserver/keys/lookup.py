"""Other people's keys: `/keys/query` and `/keys/claim`, for users here and elsewhere."""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults

from homeserver.keys.key_cache import KeyCache, UserKeys, add_signatures, join_devices
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.remote import RemoteAnswer, RemoteKeys
from homeserver.keys.remote_shapes import cross_signing_json
from storage.tables.database import Database
from storage.tables.one_time_keys import Wanted, claim_keys
from storage.tables.signatures import Signature

MAX_TIMEOUT_MS = 60_000
MAX_SERVERS = 500
"""Other servers that one request may make us ask."""

_CROSS_SIGNING = (("master", "master_keys"), ("self_signing", "self_signing_keys"))


def server_of(user_id: str) -> str:
    """The server name in a user ID; empty when it is no user ID."""
    return user_id.partition(":")[2] if user_id.startswith("@") else ""


class KeyLookup:
    """Answers who has which keys, and gives one-time keys out."""

    def __init__(
        self,
        server_name: str,
        database: Database,
        keys: KeyCache,
        counts: KeyCountCache,
        remote: RemoteKeys,
        announce_counts: Callable[[str, str], None],
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._keys = keys
        self._counts = counts
        self._remote = remote
        self._announce_counts = announce_counts

    async def query(self, viewer: str, devices: dict[str, list[str]], timeout_ms: int) -> dict[str, Any]:
        """The answer of `/keys/query` for ``viewer``: a user ID to device IDs, an empty list means all devices."""
        local, remote = self._split(devices)
        answer = await self.query_local(local, viewer)
        if remote:
            ask = {server: self._remote.query(server, part, timeout_ms) for server, part in remote.items()}
            await _merge_remote(answer, ask, ("device_keys", "master_keys", "self_signing_keys"))
            masters = answer.get("master_keys", {})
            for user_id, signatures in (await self._keys.signatures_by(viewer)).items():
                if user_id in masters and user_id not in local:
                    _add_given(masters[user_id], signatures)
        return answer

    async def remote_masters(self, user_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Master keys of those who are users of other servers and have one that can be had now."""
        _, remote = self._split({user_id: [] for user_id in user_ids})
        found: dict[str, Any] = {}
        if remote:
            ask = {server: self._remote.query(server, part, 0) for server, part in remote.items()}
            await _merge_remote(found, ask, ("master_keys",))
        masters: dict[str, dict[str, Any]] = found.get("master_keys", {})
        return {user_id: key for user_id, key in masters.items() if cross_signing_json(user_id, "master", key)}

    async def query_local(self, devices: dict[str, list[str]], viewer: str | None = None) -> dict[str, Any]:
        """Keys of our users; ``viewer`` (None: another server) also gets what only the viewer may see."""
        found = await self._keys.get(devices)
        given = await self._keys.signatures_by(viewer) if viewer is not None else {}
        answer: dict[str, Any] = {"device_keys": {}, "failures": {}}
        for user_id, keys in found.items():
            answer["device_keys"][user_id] = orjson.Fragment(_chosen(keys, devices[user_id]))
            for usage, field in _CROSS_SIGNING:
                if (key := keys.cross_signing.get(usage)) is not None:
                    if usage == "master" and user_id in given:
                        value = orjson.loads(key)
                        _add_given(value, given[user_id])
                        key = orjson.dumps(value)
                    answer.setdefault(field, {})[user_id] = orjson.Fragment(key)
            if user_id == viewer and (key := keys.cross_signing.get("user_signing")) is not None:
                answer["user_signing_keys"] = {user_id: orjson.Fragment(key)}
        return answer

    async def claim(self, wanted: dict[str, dict[str, str]], timeout_ms: int) -> dict[str, Any]:
        """The answer of `/keys/claim`: user ID to device ID to algorithm."""
        local, remote = self._split(wanted)
        answer: dict[str, Any] = {"one_time_keys": await self.claim_local(_wishes(local)), "failures": {}}
        if remote:
            ask = {s: self._remote.claim(s, _wishes(part), timeout_ms) for s, part in remote.items()}
            await _merge_remote(answer, ask, ("one_time_keys",))
        return answer

    async def claim_local(self, wanted: list[Wanted]) -> dict[str, dict[str, dict[str, Any]]]:
        """Give out keys of our users' devices: user ID to device ID to ``<algorithm>:<key ID>`` to key."""
        given: dict[str, dict[str, dict[str, Any]]] = {}
        if not wanted:
            return given
        for key in await self._database.run_single(lambda cur: claim_keys(cur, wanted)):
            device = given.setdefault(key.user_id, {}).setdefault(key.device_id, {})
            device[f"{key.algorithm}:{key.key_id}"] = orjson.Fragment(key.key_json)
            self._counts.changed(key.user_id, key.device_id)
            self._announce_counts(key.user_id, key.device_id)
        return given

    def _split(self, users: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        local: dict[str, Any] = {}
        remote: dict[str, dict[str, Any]] = {}
        for user_id, part in users.items():
            server = server_of(user_id)
            if server == self._server_name:
                local[user_id] = part
            elif server and (server in remote or len(remote) < MAX_SERVERS):
                remote.setdefault(server, {})[user_id] = part
        return local, remote


def _wishes(wanted: dict[str, dict[str, str]]) -> list[Wanted]:
    return [Wanted(user, device, algorithm) for user, of in wanted.items() for device, algorithm in of.items()]


def _chosen(keys: UserKeys, device_ids: list[str]) -> bytes:
    if not device_ids:
        return keys.all_devices
    return join_devices({name: keys.devices[name] for name in device_ids if name in keys.devices})


def _add_given(key: dict[str, Any], given: Iterable[Signature]) -> None:
    """Add those signatures that are of this key, not of one that it replaced."""
    public_keys = {name.partition(":")[2] for name in key.get("keys", {})}
    add_signatures(key, (signature for signature in given if signature.target_key in public_keys))


async def _merge_remote(answer: dict[str, Any], ask: dict[str, Any], fields: tuple[str, ...]) -> None:
    """Add what other servers answered, all asked at the same time; one that fails is named under `failures`."""
    asked = [Deferred.fromCoroutine(question) for question in ask.values()]
    results: list[RemoteAnswer] = await gatherResults(asked, consumeErrors=True)
    for server, result in zip(ask, results, strict=True):
        if result.failure is not None:
            answer.setdefault("failures", {})[server] = result.failure
        for field in fields:
            if part := result.keys.get(field):
                answer.setdefault(field, {}).update(part)
