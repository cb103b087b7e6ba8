"""The public keys of local users as the bytes that `/keys/query` sends, kept in memory."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import orjson
from psycopg2.extensions import cursor as Cursor

from storage.tables.cross_signing_keys import cross_signing_keys_of
from storage.tables.database import Database
from storage.tables.device_keys import DeviceKeysRow, device_keys_of
from storage.tables.signatures import Signature, own_signatures, signatures_on_others
from storage.tables.users import known_users


class UserKeys:
    """One user's keys: ``devices`` and the three cross-signing keys as JSON bytes, None where there is none."""

    __slots__ = ("all_devices", "cross_signing", "devices")

    def __init__(self, devices: dict[str, bytes], cross_signing: dict[str, bytes]) -> None:
        self.devices = devices
        self.cross_signing = cross_signing
        self.all_devices = join_devices(devices)


def join_devices(devices: dict[str, bytes]) -> bytes:
    """``{device ID: keys}`` as one JSON object."""
    return b"{%s}" % b",".join(b"%s:%s" % (orjson.dumps(name), keys) for name, keys in devices.items())


class KeyCache:
    """Keys of the users that were asked for lately, at most ``limit`` of them."""

    def __init__(self, database: Database, limit: int = 20_000) -> None:
        self._database = database
        self._limit = limit
        self._users: OrderedDict[str, UserKeys] = OrderedDict()
        self._given: OrderedDict[str, dict[str, list[Signature]]] = OrderedDict()
        self._changes = 0

    async def get(self, user_ids: Iterable[str]) -> dict[str, UserKeys]:
        """The keys of those that exist; one SQL transaction for all that are not in memory."""
        found: dict[str, UserKeys] = {}
        missing = []
        users = self._users
        for user_id in user_ids:
            if (keys := users.get(user_id)) is not None:
                found[user_id] = keys
                users.move_to_end(user_id)
            else:
                missing.append(user_id)
        if missing:
            changes = self._changes
            loaded = await self._database.run(lambda cur: _load(cur, missing))
            found |= loaded
            # A change in the meantime may or may not be in what was read: good for the caller, not worth keeping.
            if changes == self._changes:
                users.update(loaded)
                while len(users) > self._limit:
                    users.popitem(last=False)
        return found

    async def signatures_by(self, viewer: str) -> dict[str, list[Signature]]:
        """What ``viewer`` signed of other people's keys, by their user ID: for the viewer's eyes only."""
        if (given := self._given.get(viewer)) is not None:
            self._given.move_to_end(viewer)
            return given
        changes = self._changes
        given = {}
        for signature in await self._database.run(lambda cur: signatures_on_others(cur, viewer)):
            given.setdefault(signature.target_user_id, []).append(signature)
        if changes == self._changes:
            self._given[viewer] = given
            while len(self._given) > self._limit:
                self._given.popitem(last=False)
        return given

    def changed(self, user_id: str) -> None:
        """Keys, device names or signatures of this user changed in the database."""
        self._changes += 1
        self._users.pop(user_id, None)
        self._given.pop(user_id, None)


def _load(cur: Cursor, user_ids: list[str]) -> dict[str, UserKeys]:
    known = known_users(cur, user_ids)
    signatures: dict[tuple[str, str], list[Signature]] = {}
    for signature in own_signatures(cur, user_ids):
        signatures.setdefault((signature.target_user_id, signature.target_key), []).append(signature)
    devices: dict[str, dict[str, bytes]] = {user_id: {} for user_id in known}
    for row in device_keys_of(cur, user_ids):
        given = signatures.get((row.user_id, row.device_id), ())
        devices.setdefault(row.user_id, {})[row.device_id] = _device_json(row, given)
    cross_signing: dict[str, dict[str, bytes]] = {}
    for key in cross_signing_keys_of(cur, user_ids):
        value = orjson.loads(key.key_json)
        add_signatures(value, signatures.get((key.user_id, key.public_key), ()))
        cross_signing.setdefault(key.user_id, {})[key.usage] = orjson.dumps(value)
    return {user_id: UserKeys(of_user, cross_signing.get(user_id, {})) for user_id, of_user in devices.items()}


def _device_json(row: DeviceKeysRow, signatures: Iterable[Signature]) -> bytes:
    value = orjson.loads(row.keys_json)
    add_signatures(value, signatures)
    value["unsigned"] = {} if row.display_name is None else {"device_display_name": row.display_name}
    return orjson.dumps(value)


def add_signatures(value: dict[str, Any], signatures: Iterable[Signature]) -> None:
    """Put signatures that are kept apart back into the object that they sign."""
    for signature in signatures:
        by_signer = value.setdefault("signatures", {}).setdefault(signature.signer_user_id, {})
        by_signer[signature.signer_key] = signature.signature
