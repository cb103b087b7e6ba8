"""Tokens: made by the system's secure source, given to the client once, kept as SHA-256 hashes."""

import hashlib
import secrets
import string

MAX_TOKEN_LENGTH = 1024
"""Longest token that is looked at; imported ones are far shorter."""


def new_access_token() -> str:
    """A fresh access token with 256 random bits."""
    return "fma_" + secrets.token_urlsafe(32)


def new_refresh_token() -> str:
    """A fresh refresh token."""
    return "fmr_" + secrets.token_urlsafe(32)


def new_login_token() -> str:
    """A fresh token for `m.login.token`."""
    return "fml_" + secrets.token_urlsafe(32)


def new_openid_token() -> str:
    """A fresh OpenID token, which is no access token."""
    return "fmo_" + secrets.token_urlsafe(32)


def new_device_id() -> str:
    """A device ID for a client that did not name one: ten capitals."""
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))


def token_hash(token: str) -> bytes:
    """What is stored of a token. A fast hash is right here: the token itself is 256 random bits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
