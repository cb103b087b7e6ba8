"""Asks the running server for an account, by its shared secret: what ``folkmoot register-user`` does."""

import hashlib
import hmac
import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config.data_directory import read_registration_secret
from config.schema import Config
from homeserver.admin.unix_connection import UnixConnection

PATH = "/_synapse/admin/v1/register"
TIMEOUT_SECONDS = 30.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class RegistrationFailed(Exception):
    """There is no account; the message says why and what to do."""


def register(config: Config, localpart: str, password: str, *, admin: bool, url: str | None) -> str:
    """Create the account on the running server of ``config``; its user ID. Raises RegistrationFailed."""
    secret = config.registration_shared_secret or read_registration_secret(Path(config.data_dir))
    if secret is None:
        raise RegistrationFailed(
            f"No shared secret: start the server first (it makes one in {config.data_dir}), "
            "or set registration_shared_secret"
        )
    connection = connect(config, url)
    try:
        nonce = _ask(connection, "GET", None)["nonce"]
        body = {"nonce": nonce, "username": localpart, "password": password, "admin": admin}
        answer = _ask(
            connection, "POST", body | {"mac": signature(secret, nonce, localpart, password, admin)}
        )
        return str(answer["user_id"])
    except (OSError, HTTPException, KeyError, ValueError) as problem:
        raise RegistrationFailed(
            f"The server does not answer at {connection.host}:{connection.port} ({problem}): is it running? "
            "Name its address with --url"
        ) from problem
    finally:
        connection.close()


def signature(secret: str, nonce: str, localpart: str, password: str, admin: bool) -> str:
    """The ``mac`` that proves that the caller has the secret: HMAC-SHA1, as scripts for Synapse make it."""
    parts = (nonce, localpart, password, "admin" if admin else "notadmin")
    return hmac.new(secret.encode(), b"\0".join(part.encode() for part in parts), hashlib.sha1).hexdigest()


def connect(config: Config, url: str | None) -> HTTPConnection:
    """A connection to ``url``, or to the first listener.

    Our own TLS listener is not asked whether it knows its name.
    """
    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise RegistrationFailed(f"--url {url}: write it like http://127.0.0.1:8008")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        return kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
    listener = min(config.listeners, key=lambda candidate: candidate.tls)
    if listener.path is not None:
        return UnixConnection(listener.path, TIMEOUT_SECONDS)
    host = listener.bind_addresses[0] if listener.bind_addresses else "127.0.0.1"
    host = _EVERY_ADDRESS.get(host, host)
    if not listener.tls:
        return HTTPConnection(host, listener.port, timeout=TIMEOUT_SECONDS)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return HTTPSConnection(host, listener.port, timeout=TIMEOUT_SECONDS, context=context)


def _ask(connection: HTTPConnection, method: str, body: dict[str, Any] | None) -> dict[str, Any]:
    connection.request(
        method, PATH, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    answer = json.loads(response.read(100_000))
    if response.status != 200:
        raise RegistrationFailed(
            f"The server refused: {answer.get('error', response.status)} ({answer.get('errcode')})"
        )
    return dict(answer)
