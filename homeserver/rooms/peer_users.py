"""What other servers may know of our users, rooms and aliases. Server-Server API, "Queries", "Device Management"."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from federation.outbound.device_streams import stream_id
from federation.rules.errors import MatrixError
from homeserver.accounts.profiles import Profiles
from homeserver.accounts.tokens import token_hash
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.lookup import KeyLookup
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.room import Rooms
from homeserver.rooms.servers import Servers
from storage.log.append import Log
from storage.log.device_lists import last_change
from storage.tables import login_tokens
from storage.tables.database import Database
from storage.tables.one_time_keys import Wanted

MAX_SERVERS = 200
"""Servers named with an alias."""
MAX_CLAIMS = 5000


class PeerUsers:
    """See `federation.inbound.ports.KnowsUsers`."""

    def __init__(
        self,
        database: Database,
        log: Log,
        profiles: Profiles,
        keys: KeyCache,
        lookup: KeyLookup,
        now_ms: Callable[[], int],
        device_names: bool = False,
    ) -> None:
        self._database = database
        self._log = log
        self._profiles = profiles
        self._keys = keys
        self._lookup = lookup
        self._now_ms = now_ms
        self._device_names = device_names

    async def profile(self, user_id: str) -> dict[str, Any]:
        """All fields. MatrixError 404 for who does not exist."""
        return await self._profiles.get(user_id)

    async def exists(self, user_id: str) -> bool:
        """Whether there is such an account, in use."""
        try:
            await self._profiles.get(user_id)
        except MatrixError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def devices(self, user_id: str) -> dict[str, Any]:
        """Devices with their keys, and the version of the list."""
        await self._profiles.get(user_id)
        # Before the keys are read: the list must not be older than the version that it claims to be.
        version = stream_id(last_change(self._log, user_id) or 0)
        found = (await self._keys.get([user_id])).get(user_id)
        answer: dict[str, Any] = {"user_id": user_id, "stream_id": version, "devices": []}
        if found is None:
            return answer
        for device_id, keys in found.devices.items():
            answer["devices"].append(self._device(device_id, keys))
        for usage in ("master", "self_signing"):
            key = found.cross_signing.get(usage)
            if key is not None:
                answer[f"{usage}_key"] = orjson.Fragment(key)
        return answer

    def _device(self, device_id: str, keys: bytes) -> dict[str, Any]:
        value = orjson.loads(keys)
        unsigned = value.pop("unsigned", None) or {}
        device: dict[str, Any] = {"device_id": device_id, "keys": value}
        name = unsigned.get("device_display_name")
        if self._device_names and isinstance(name, str):
            device["device_display_name"] = name
        return device

    async def query_keys(self, devices: dict[str, list[str]]) -> dict[str, Any]:
        """Device and cross-signing keys."""
        return await self._lookup.query_local(devices)

    async def claim_keys(self, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
        """One-time keys."""
        wishes = [Wanted(user, device, name) for user, by_device in wanted.items() for device, name in by_device.items()]
        if len(wishes) > MAX_CLAIMS:
            raise MatrixError(400, "M_INVALID_PARAM", "Too many keys at once")
        return {"one_time_keys": await self._lookup.claim_local(wishes)}

    async def openid_user(self, token: str) -> str | None:
        """Whose OpenID token it is."""
        hashed, now = token_hash(token), self._now_ms()
        return await self._database.run_single(lambda cur: login_tokens.user_of_openid_token(cur, hashed, now))


class PeerDirectory:
    """See `federation.inbound.ports.ListsRooms`."""

    def __init__(self, rooms: Rooms, aliases: Aliases, public_rooms: PublicRooms, servers: Servers) -> None:
        self._rooms = rooms
        self._aliases = aliases
        self._public_rooms = public_rooms
        self._servers = servers

    def public_rooms(
        self, limit: int | None, since: str | None, term: str | None, room_types: Sequence[str | None] | None
    ) -> dict[str, Any]:
        """One page of the listed rooms."""
        return self._public_rooms.page(limit, since, term, room_types).body()

    def alias(self, alias: str) -> tuple[str, list[str]] | None:
        """The room behind an alias, and servers in it, this one first."""
        room_id = self._aliases.room_of(alias)
        room = None if room_id is None else self._rooms.find(room_id)
        if room_id is None:
            return None
        own = self._rooms.server_name
        others = [] if room is None else sorted(server for server in self._servers.of(room) if server != own)
        return room_id, [own, *others[: MAX_SERVERS - 1]]
