"""Cross-signing: a user's master, self-signing and user-signing keys, and the signatures that connect keys.

Nothing is kept that was not verified (Client-Server API, "Cross-signing"): a subkey has to be signed by the master
key, and each signature by the key that it names. What fails is reported for each key, the rest is kept.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
import orjson
from psycopg2.extensions import cursor as Cursor

from federation.rules.errors import MatrixError
from homeserver.keys.device_lists import record_change
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.publish import Outbox
from homeserver.keys.shapes import CrossSigningKeyShape, key_text
from homeserver.keys.signature_upload import accept_signatures
from homeserver.keys.signing_checks import is_signed_by, public_key_bytes, same_but_signatures
from storage.tables.cross_signing_keys import (
    CrossSigningKey,
    cross_signing_keys_of,
    delete_cross_signing_keys,
    device_exists,
    lock_cross_signing,
    store_cross_signing_key,
)
from storage.tables.database import Database
from storage.tables.device_keys import device_keys_of
from storage.tables.signatures import delete_signatures_of

USAGES = ("master", "self_signing", "user_signing")

Keys = Mapping[str, CrossSigningKey]
RemoteMasters = Callable[[Iterable[str]], Awaitable[Mapping[str, dict[str, Any]]]]
"""Finds master keys of users of other servers, by user ID; our own users in the argument are left out."""


class CrossSigning:
    """Stores cross-signing keys and signatures of local users; ``remote_masters`` finds keys of those elsewhere."""

    def __init__(self, database: Database, keys: KeyCache, outbox: Outbox, remote_masters: RemoteMasters) -> None:
        self._database = database
        self._keys = keys
        self._outbox = outbox
        self._remote_masters = remote_masters

    async def needs_authentication(self, user_id: str, uploaded: Mapping[str, dict[str, Any]]) -> bool:
        """Whether this upload replaces something, so that a stolen access token must not suffice.

        False as long as there is no master key, and when all keys are the stored ones (the answer was lost).
        """
        stored = await self._database.run_single(lambda cur: _keys_of(cur, user_id))
        return "master" in stored and not all(_is_stored(key, stored.get(usage)) for usage, key in uploaded.items())

    async def upload_keys(
        self, user_id: str, uploaded: Mapping[str, dict[str, Any]], *, authenticated: bool
    ) -> None:
        """Keep the keys, by usage. A new master key removes subkeys that only the old one vouches for.

        Raises MatrixError 400 for malformed or wrongly signed keys, 403 for a key named like a device.
        """
        keys = {usage: _checked_key(user_id, usage, value) for usage, value in uploaded.items()}
        if not keys:
            return
        changed = await self._database.run(lambda cur: _store_keys(cur, user_id, keys, authenticated))
        if changed:
            self._keys.changed(user_id)
            await self._outbox.drained()

    async def upload_signatures(
        self, user_id: str, signed: Mapping[str, Mapping[str, dict[str, Any]]]
    ) -> dict[str, dict[str, dict[str, str]]]:
        """Verify and keep signatures that ``user_id`` made; returns the failures by user ID and key ID."""
        found = await self._remote_masters(signed)
        masters = [_master_row(target, key) for target, key in found.items()]
        failures, changed = await self._database.run(lambda cur: accept_signatures(cur, user_id, signed, masters))
        for target in changed:
            self._keys.changed(target)
        if changed:
            self._keys.changed(user_id)
            await self._outbox.drained()
        return failures


def _keys_of(cur: Cursor, user_id: str) -> dict[str, CrossSigningKey]:
    return {key.usage: key for key in cross_signing_keys_of(cur, [user_id])}


def _master_row(user_id: str, key: dict[str, Any]) -> CrossSigningKey:
    (public_key,) = key["keys"].values()
    return CrossSigningKey(user_id, "master", public_key, orjson.dumps(key).decode())


def _is_stored(value: dict[str, Any], stored: CrossSigningKey | None) -> bool:
    return stored is not None and same_but_signatures(value, orjson.loads(stored.key_json))


def _checked_key(user_id: str, usage: str, value: dict[str, Any]) -> CrossSigningKey:
    """The key as a row, its form checked; signatures are still to be verified."""
    try:
        shape = msgspec.convert(value, CrossSigningKeyShape, strict=True)
    except msgspec.ValidationError as error:
        raise MatrixError(400, "M_BAD_JSON", f"{usage} key: {error}") from None
    if shape.user_id != user_id or usage not in shape.usage or len(shape.keys) != 1:
        raise MatrixError(400, "M_INVALID_PARAM", f"This is not one {usage} key of {user_id}")
    ((name, public_key),) = shape.keys.items()
    if name != f"ed25519:{public_key}" or public_key_bytes(public_key) is None:
        raise MatrixError(400, "M_INVALID_PARAM", f"The {usage} key is not an Ed25519 key under its own name")
    return CrossSigningKey(user_id, usage, public_key, key_text(value))


def _store_keys(cur: Cursor, user_id: str, keys: dict[str, CrossSigningKey], authenticated: bool) -> bool:
    """Returns whether anything is other than before."""
    lock_cross_signing(cur, user_id)
    stored = _keys_of(cur, user_id)
    new = {use: key for use, key in keys.items() if not _is_stored(orjson.loads(key.key_json), stored.get(use))}
    if not new:
        return False
    if "master" in stored and not authenticated:
        # Another client was faster than this one, which was let through because there was no master key yet.
        raise MatrixError(403, "M_FORBIDDEN", "There is a master key by now; authenticate to replace it")
    master = keys.get("master", stored.get("master"))
    if master is None:
        raise MatrixError(400, "M_MISSING_PARAM", "No master key is available")
    if device_exists(cur, user_id, [key.public_key for key in new.values()]):
        raise MatrixError(403, "M_FORBIDDEN", "Key ID in use")
    for usage, key in new.items():
        store_cross_signing_key(cur, _verified(cur, user_id, usage, key, master))
        if usage in stored:
            delete_signatures_of(cur, user_id, [stored[usage].public_key])
    if "master" in new:
        delete_cross_signing_keys(cur, user_id, [usage for usage in USAGES if usage not in keys])
    # Nobody but the user ever sees a user-signing key.
    record_change(cur, user_id, only_for=user_id if new.keys() == {"user_signing"} else None)
    return True


def _verified(
    cur: Cursor, user_id: str, usage: str, key: CrossSigningKey, master: CrossSigningKey
) -> CrossSigningKey:
    """The key with those of its signatures that are right; raises MatrixError 400 when one is wrong."""
    value = orjson.loads(key.key_json)
    given = value.pop("signatures", {}).get(user_id, {})
    if usage == "master":
        signers = _device_signers(cur, user_id)
    else:
        signers = {f"ed25519:{master.public_key}": master.public_key}
    kept = {}
    for name, signature in given.items():
        if name not in signers:
            continue
        if not is_signed_by(value | {"signatures": {user_id: {name: signature}}}, user_id, name[8:], signers[name]):
            raise MatrixError(400, "M_INVALID_SIGNATURE", f"The signature of the {usage} key is wrong")
        kept[name] = signature
    if usage != "master" and not kept:
        raise MatrixError(400, "M_INVALID_SIGNATURE", f"The {usage} key is not signed by the master key")
    if kept:
        value["signatures"] = {user_id: kept}
    return key._replace(key_json=key_text(value))


def _device_signers(cur: Cursor, user_id: str) -> dict[str, str]:
    """The Ed25519 keys of the user's devices: a master key may be signed by them."""
    signers = {}
    for row in device_keys_of(cur, [user_id]):
        name = f"ed25519:{row.device_id}"
        if name in (keys := orjson.loads(row.keys_json)["keys"]):
            signers[name] = keys[name]
    return signers
