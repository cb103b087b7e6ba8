"""Signatures that arrive for keys which are already published: `/keys/signatures/upload`.

Three kinds are meant by the specification ("Cross-signing"), and only these are kept: a user's self-signing key on own
devices, own devices on the own master key, the user-signing key on other people's master keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from psycopg2.extensions import cursor as Cursor

from federation.rules.errors import MatrixError
from homeserver.keys.device_lists import record_change
from homeserver.keys.signing_checks import is_signed_by, same_but_signatures
from storage.tables.cross_signing_keys import CrossSigningKey, cross_signing_keys_of, lock_cross_signing
from storage.tables.device_keys import device_keys_of
from storage.tables.signatures import Signature, store_signatures

MAX_TARGETS = 1000
MAX_SIGNATURES_PER_TARGET = 50

Failures = dict[str, dict[str, dict[str, str]]]


class _Known:
    """The published keys of everybody concerned, as they are within this transaction."""

    def __init__(self, cur: Cursor, user_ids: list[str], masters: Iterable[CrossSigningKey]) -> None:
        self.devices = {(row.user_id, row.device_id): row.keys_json for row in device_keys_of(cur, user_ids)}
        self.cross_signing: dict[tuple[str, str], CrossSigningKey] = {
            (key.user_id, key.usage): key for key in (*cross_signing_keys_of(cur, user_ids), *masters)
        }

    def target(self, user_id: str, key_id: str) -> tuple[dict[str, Any], bool] | None:
        """The published object with this ID and whether it is a master key."""
        if (text := self.devices.get((user_id, key_id))) is not None:
            return orjson.loads(text), False
        master = self.cross_signing.get((user_id, "master"))
        if master is not None and master.public_key == key_id:
            return orjson.loads(master.key_json), True
        return None

    def signers(self, signer: str, target_user_id: str, is_master: bool) -> dict[str, str]:
        """Whose signature on the target counts: ``ed25519:<name>`` to public key."""
        if is_master and signer == target_user_id:
            return {
                name: key
                for (user_id, device_id), text in self.devices.items()
                if user_id == signer
                and type(key := orjson.loads(text)["keys"].get(name := f"ed25519:{device_id}")) is str
            }
        if is_master == (signer == target_user_id):
            return {}
        usage = "user_signing" if is_master else "self_signing"
        key = self.cross_signing.get((signer, usage))
        return {} if key is None else {f"ed25519:{key.public_key}": key.public_key}


def accept_signatures(
    cur: Cursor,
    signer: str,
    signed: Mapping[str, Mapping[str, dict[str, Any]]],
    masters: Iterable[CrossSigningKey] = (),
) -> tuple[Failures, set[str]]:
    """Verify what ``signer`` uploads and keep what is right. ``masters`` are master keys of other servers' users.

    Returns the failures by user ID and key ID, and the users whose keys look different now (to somebody).
    Raises MatrixError 400 for more than `MAX_TARGETS` keys.
    """
    if sum(len(targets) for targets in signed.values()) > MAX_TARGETS:
        raise MatrixError(400, "M_INVALID_PARAM", f"At most {MAX_TARGETS} keys at once")
    lock_cross_signing(cur, signer)
    known = _Known(cur, [signer, *signed], masters)
    failures: Failures = {}
    kept: list[Signature] = []
    for user_id, targets in signed.items():
        for key_id, value in targets.items():
            try:
                kept += _verified(known, signer, user_id, key_id, value)
            except MatrixError as error:
                body = {"errcode": error.errcode, "error": error.error}
                failures.setdefault(user_id, {})[key_id] = body
    if kept:
        store_signatures(cur, kept)
    changed = {signature.target_user_id for signature in kept}
    for user_id in sorted(changed):
        # What one user signs of another's keys is nobody else's business.
        record_change(cur, user_id, only_for=None if user_id == signer else signer)
    return failures, changed


def _verified(
    known: _Known, signer: str, user_id: str, key_id: str, value: dict[str, Any]
) -> list[Signature]:
    target = known.target(user_id, key_id)
    if target is None:
        raise MatrixError(404, "M_NOT_FOUND", "Unknown key")
    stored, is_master = target
    if not same_but_signatures(value, stored):
        raise MatrixError(400, "M_INVALID_PARAM", "This is not the key that was published")
    signatures = value.get("signatures")
    given = signatures.get(signer) if type(signatures) is dict else None
    if type(given) is not dict or len(given) > MAX_SIGNATURES_PER_TARGET:
        raise MatrixError(400, "M_INVALID_SIGNATURE", "There is no signature of yours")
    signers = known.signers(signer, user_id, is_master)
    kept = []
    for name, signature in given.items():
        if name not in signers:
            continue
        alone = stored | {"signatures": {signer: {name: signature}}}
        if type(signature) is not str or not is_signed_by(alone, signer, name.partition(":")[2], signers[name]):
            raise MatrixError(400, "M_INVALID_SIGNATURE", "Invalid signature")
        kept.append(Signature(user_id, key_id, signer, name, signature))
    if not kept:
        raise MatrixError(400, "M_INVALID_SIGNATURE", "No signature by a key that may sign this one")
    return kept
