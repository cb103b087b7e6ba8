"""Ed25519 signatures on key objects (appendices, "Checking for a Signature"). Pure."""

from typing import Any

from signedjson.key import decode_verify_key_bytes
from signedjson.sign import SignatureVerifyException, verify_signed_json
from unpaddedbase64 import decode_base64


def public_key_bytes(text: str) -> bytes | None:
    """The 32 bytes of an Ed25519 public key in unpadded base64; None when it is no such key."""
    try:
        raw = decode_base64(text)
    except (ValueError, UnicodeEncodeError):
        return None
    return raw if len(raw) == 32 else None


def is_signed_by(signed: dict[str, Any], signer_user_id: str, key_name: str, public_key: str) -> bool:
    """Whether ``signed`` carries a valid signature of ``signer_user_id`` made with ``ed25519:<key_name>``.

    ``public_key`` is that key in unpadded base64; `signatures` and `unsigned` are not part of what is signed.
    """
    raw = public_key_bytes(public_key)
    if raw is None or not key_name:
        return False
    try:
        # The name serves to find the signature; the library wants version names of its own kind elsewhere.
        verify_key = decode_verify_key_bytes(f"ed25519:{key_name}", raw)
        verify_signed_json(signed, signer_user_id, verify_key)
    except (SignatureVerifyException, ValueError, TypeError, AttributeError, RecursionError):
        return False
    return True


def same_but_signatures(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two key objects say the same, apart from who signed them."""
    ignored = ("signatures", "unsigned")
    return {k: v for k, v in one.items() if k not in ignored} == {
        k: v for k, v in other.items() if k not in ignored
    }
