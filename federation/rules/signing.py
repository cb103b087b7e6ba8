"""Signing JSON with a server's Ed25519 key, and checking such signatures.

Specification: Appendices, "Signing JSON". Key files have signedjson's format: ``ed25519 <version> <seed>``.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_BYTES
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.signing import SigningKey as Ed25519Key
from nacl.signing import VerifyKey

from federation.rules import canonical_json
from federation.rules.errors import MatrixError
from federation.rules.hashes import decode_base64, encode_base64
from federation.rules.ids import is_valid_key_id

POLICY_KEY_ID = "ed25519:policy_server"
"""The name of a policy server's key under events. Rooms know that key from their state; no server publishes it."""


class SignatureError(MatrixError):
    """A signature that is missing, malformed or wrong; answered 401."""

    def __init__(self, error: str) -> None:
        super().__init__(401, "M_UNAUTHORIZED", error)


class KeyUnavailable(SignatureError):
    """A signature that cannot be checked for the moment: its server does not answer, and nobody else has the key."""


class SigningKey:
    """A server's private key with the name that other servers know it by.

    ``key_id`` is ``ed25519:`` and the version; ``server_name`` is the server in whose name it signs, None for
    a key that is not bound to one.
    """

    __slots__ = ("_secret", "key", "key_id", "server_name")

    def __init__(self, key_id: str, key: Ed25519Key, server_name: str | None = None) -> None:
        self.key_id = key_id
        self.server_name = server_name
        self.key = key
        self._secret = bytes(key) + bytes(key.verify_key)

    @classmethod
    def from_seed(
        cls, seed: bytes, server_name: str | None = None, key_id: str | None = None
    ) -> "SigningKey":
        """A key of 32 secret bytes. Its id derives from the public key unless one is given."""
        key = Ed25519Key(seed)
        return cls(key_id or key_id_of(bytes(key.verify_key)), key, server_name)

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return self.key.verify_key

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature over a message."""
        return crypto_sign(message, self._secret)[:crypto_sign_BYTES]


def key_id_of(public_key: bytes) -> str:
    """The id of a new key: ``ed25519:a_`` and six letters that follow from the key itself."""
    letters = encode_base64(sha256(public_key).digest()).replace("+", "p").replace("/", "s")
    return "ed25519:a_" + letters[:6]


def read_signing_keys(text: str, server_name: str | None = None) -> list[SigningKey]:
    """The keys of a key file, one a line: ``ed25519 <version> <unpadded base64 seed>``. Raises ValueError."""
    keys = []
    for line in text.splitlines():
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 3 or parts[0] != "ed25519" or not is_valid_key_id("ed25519:" + parts[1]):
            raise ValueError("a signing key line is 'ed25519 <version> <base64 seed>'")
        seed = decode_base64(parts[2])
        if len(seed) != 32:
            raise ValueError("the seed of an Ed25519 key has 32 bytes")
        keys.append(SigningKey.from_seed(seed, server_name, "ed25519:" + parts[1]))
    return keys


def write_signing_keys(keys: list[SigningKey]) -> str:
    """The text of a key file; ``read_signing_keys`` reads it back."""
    lines = (f"{key.key_id.replace(':', ' ')} {encode_base64(bytes(key.key))}\n" for key in keys)
    return "".join(lines)


def bytes_to_sign(obj: Mapping[str, Any]) -> bytes:
    """What a signature covers: the object without ``signatures`` and ``unsigned``, in canonical JSON."""
    return canonical_json.encode({key: obj[key] for key in obj if key not in ("signatures", "unsigned")})


def sign_json(obj: Mapping[str, Any], server_name: str, key: SigningKey) -> dict[str, Any]:
    """A copy of an object with our signature beside those that it has.

    Raises MatrixError 400 when the object is not canonical JSON.
    """
    signature = encode_base64(key.sign(bytes_to_sign(obj)))
    return with_signature(obj, server_name, key.key_id, signature)


def with_signature(obj: Mapping[str, Any], server_name: str, key_id: str, signature: str) -> dict[str, Any]:
    """A copy of an object with one more signature in ``signatures``."""
    before = obj.get("signatures")
    signatures = dict(before) if isinstance(before, dict) else {}
    of_server = signatures.get(server_name)
    signatures[server_name] = {**(of_server if isinstance(of_server, dict) else {}), key_id: signature}
    return {**obj, "signatures": signatures}


def verify_signed_json(
    obj: Mapping[str, Any], server_name: str, verify_keys: Mapping[str, bytes | VerifyKey]
) -> None:
    """Check the signatures of a server on an object.

    Every signature by a key in ``verify_keys`` has to be right and there has to be one; unknown keys are
    skipped.
    Raises SignatureError.
    """
    verify_signatures(bytes_to_sign(obj), obj.get("signatures"), server_name, verify_keys)


def verify_signatures(
    message: bytes, signatures: object, server_name: str, verify_keys: Mapping[str, bytes | VerifyKey]
) -> None:
    """As ``verify_signed_json``, for bytes that were made already. ``signatures`` is the object's own key."""
    of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(of_server, dict) or not of_server:
        raise SignatureError(f"No signature of {server_name}")
    checked = False
    for key_id, signature in of_server.items():
        verify_key = verify_keys.get(key_id)
        if verify_key is None:
            continue
        if not signature_is_valid(message, signature, verify_key):
            raise SignatureError(f"Wrong signature of {server_name} with {key_id}")
        checked = True
    if not checked:
        raise SignatureError(f"No signature of {server_name} with a key that we know")


def signature_is_valid(message: bytes, signature: object, verify_key: bytes | VerifyKey) -> bool:
    """Whether an unpadded base64 signature over a message is right. Never raises."""
    if not isinstance(signature, str):
        return False
    try:
        key = verify_key if isinstance(verify_key, VerifyKey) else VerifyKey(verify_key)
        key.verify(message, decode_base64(signature))
    except (BadSignatureError, CryptoError, ValueError, TypeError):
        return False
    return True
