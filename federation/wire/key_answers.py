"""Answers to ``/_matrix/key/v2/server``: making ours, and checking those of others. Pure.

Specification: Server-Server API, "Retrieving server keys".
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from nacl.signing import VerifyKey

from federation.rules.checks import SEVEN_DAYS_MS
from federation.rules.hashes import decode_base64, encode_base64
from federation.rules.ids import is_valid_key_id, is_valid_server_name
from federation.rules.signing import SignatureError, SigningKey, sign_json, verify_signed_json

MAX_KEYS = 200
MAX_ANSWER_BYTES = 128 * 1024


class KeyAnswerError(ValueError):
    """An answer that is not to be believed; the message says why."""


class ServerKey(NamedTuple):
    """A public key. ``valid_until_ts`` (ms) is capped, or when the key was retired."""

    verify_key: VerifyKey
    valid_until_ts: int


class KeyAnswer(NamedTuple):
    """A checked answer: whose, its keys by id, until when (ms) to believe it, and the object itself."""

    server_name: str
    keys: Mapping[str, ServerKey]
    valid_until_ts: int
    document: dict[str, Any]


def make(
    server_name: str,
    keys: list[SigningKey],
    old_keys: Mapping[str, tuple[str, int]],
    valid_until_ts: int,
) -> dict[str, Any]:
    """Our answer, signed with each key. ``old_keys``: id to (unpadded base64, retired at in ms)."""
    answer: dict[str, Any] = {
        "server_name": server_name,
        "valid_until_ts": valid_until_ts,
        "verify_keys": {key.key_id: {"key": encode_base64(bytes(key.verify_key))} for key in keys},
        "old_verify_keys": {
            key_id: {"key": key, "expired_ts": expired} for key_id, (key, expired) in old_keys.items()
        },
    }
    for key in keys:
        answer = sign_json(answer, server_name, key)
    return answer


def check(document: object, now_ms: int) -> KeyAnswer:
    """Read an answer and verify that its server signed it with a key that it lists. Raises KeyAnswerError."""
    if not isinstance(document, dict):
        raise KeyAnswerError("it is not a JSON object")
    server_name, valid_until = document.get("server_name"), document.get("valid_until_ts")
    if not isinstance(server_name, str) or not is_valid_server_name(server_name):
        raise KeyAnswerError("it names no server")
    if type(valid_until) is not int:
        raise KeyAnswerError("it has no valid_until_ts")
    until = min(valid_until, now_ms + SEVEN_DAYS_MS)
    current = {key_id: ServerKey(key, until) for key_id, key, _ in _keys(document, "verify_keys")}
    if not current:
        raise KeyAnswerError("it lists no key")
    try:
        verify_signed_json(document, server_name, {key_id: key.verify_key for key_id, key in current.items()})
    except SignatureError as problem:
        raise KeyAnswerError(problem.error) from None
    except Exception as problem:
        raise KeyAnswerError(f"it cannot be verified ({problem})") from None
    retired = {
        key_id: ServerKey(key, entry["expired_ts"])
        for key_id, key, entry in _keys(document, "old_verify_keys")
        if type(entry.get("expired_ts")) is int and key_id not in current
    }
    return KeyAnswer(server_name, {**retired, **current}, until, document)


def _keys(document: Mapping[str, Any], field: str) -> list[tuple[str, VerifyKey, Mapping[str, Any]]]:
    listed = document.get(field, {})
    if not isinstance(listed, dict) or len(listed) > MAX_KEYS:
        raise KeyAnswerError(f"its {field} is no object of reasonable size")
    found = []
    for key_id, entry in listed.items():
        if not is_valid_key_id(key_id):
            continue  # of an algorithm that is not ours
        try:
            key = VerifyKey(decode_base64(entry["key"]))
        except Exception as problem:
            raise KeyAnswerError(f"{key_id} is no Ed25519 key") from problem
        found.append((key_id, key, entry))
    return found
