"""The ``Authorization: X-Matrix`` header: writing it, reading it, and what its signature covers. Pure.

Specification: Server-Server API, "Request Authentication"; RFC 9110 sections 5.6 and 11.4. Older servers leave colons
unquoted, which the grammar of tokens would not let them.
"""

import re
from typing import Any, NamedTuple

from federation.rules import canonical_json
from federation.rules.ids import is_valid_key_id, is_valid_server_name
from federation.rules.signing import SigningKey, encode_base64

MAX_HEADER_LENGTH = 8192
MAX_CREDENTIALS = 8

_SCHEME = re.compile(r"x-matrix[ \t]+", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*", re.ASCII)
# Beyond the token of RFC 9110: what unquoted names and signatures of other servers contain.
_BARE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z:/=\[\]-]+", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\xff])*)"')
_ESCAPE = re.compile(r"\\(.)")
_SPACES = re.compile(r"[ \t]*")


class XMatrixError(ValueError):
    """A header that is no X-Matrix; the message says why."""


class InvalidOriginError(XMatrixError):
    """A header that is well-formed, of an origin whose name no server can have."""


class Credentials(NamedTuple):
    """One set of parameters. ``destination`` is None where an older server left it out."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def request_object(
    method: str, uri: str, origin: str, destination: str | None, content: Any = None
) -> dict[str, Any]:
    """What is signed for a request. ``uri`` begins with ``/_matrix`` and carries the query."""
    signed: dict[str, Any] = {"method": method, "uri": uri, "origin": origin}
    if destination is not None:
        signed["destination"] = destination
    if content is not None:
        signed["content"] = content
    return signed


def bytes_to_sign(signed: dict[str, Any]) -> bytes:
    """The bytes under the signature. Numbers are not restricted: events of old rooms may have fractions."""
    return canonical_json.encode_lax(signed)


def build(key: SigningKey, method: str, uri: str, origin: str, destination: str, content: Any = None) -> str:
    """The header's value for a request of ours."""
    message = bytes_to_sign(request_object(method, uri, origin, destination, content))
    return (
        f'X-Matrix origin="{origin}",destination="{destination}",'
        f'key="{key.key_id}",sig="{encode_base64(key.sign(message))}"'
    )


def parse(header: str) -> list[Credentials]:
    """The credentials of a header; several when a server signs with several keys (fields joined by commas).

    All are of one origin and for one destination. Raises XMatrixError.
    """
    if len(header) > MAX_HEADER_LENGTH:
        raise XMatrixError("The Authorization header is too long")
    place = 0
    found: list[Credentials] = []
    while place < len(header):
        scheme = _SCHEME.match(header, place)
        if scheme is None or len(found) == MAX_CREDENTIALS:
            raise XMatrixError("The Authorization header is not X-Matrix")
        parameters, place = _parameters(header, scheme.end())
        found.append(_credentials(parameters))
    if not found:
        raise XMatrixError("The Authorization header is not X-Matrix")
    if len({(one.origin, one.destination) for one in found}) > 1:
        raise XMatrixError("X-Matrix headers of different servers in one request")
    return found


def _parameters(header: str, place: int) -> tuple[dict[str, str], int]:
    """Name and value pairs from a place on, up to the end or to where the next scheme begins."""
    parameters: dict[str, str] = {}
    while True:
        place = _skip(header, place)
        # RFC 9110 section 5.6.1.2: a recipient accepts empty elements of a list.
        if place < len(header) and header[place] == ",":
            place += 1
            continue
        if place == len(header) or _SCHEME.match(header, place):
            return parameters, place
        name = _NAME.match(header, place)
        if name is None:
            raise XMatrixError("X-Matrix parameters are written name=value")
        key = name[1].lower()
        if key in parameters:
            raise XMatrixError(f"X-Matrix parameter {key!r} is there twice")
        parameters[key], place = _value(header, name.end())
        place = _skip(header, place)
        if place < len(header) and header[place] != ",":
            raise XMatrixError("X-Matrix parameters are separated by commas")


def _value(header: str, place: int) -> tuple[str, int]:
    if header.startswith('"', place):
        quoted = _QUOTED.match(header, place)
        if quoted is None:
            raise XMatrixError("A quoted value in the X-Matrix header does not end")
        text = quoted[1]
        return (_ESCAPE.sub(r"\1", text) if "\\" in text else text), quoted.end()
    bare = _BARE.match(header, place)
    if bare is None:
        raise XMatrixError("An X-Matrix parameter has no value")
    return bare[0], bare.end()


def _skip(header: str, place: int) -> int:
    match = _SPACES.match(header, place)
    return match.end() if match else place


def _credentials(parameters: dict[str, str]) -> Credentials:
    origin = parameters.get("origin")
    key_id = parameters.get("key")
    # Specified as `signature`, written `sig` in the example and by every server.
    signature = parameters.get("sig", parameters.get("signature"))
    if not origin or not key_id or not signature:
        raise XMatrixError("X-Matrix needs origin, key and sig")
    if not is_valid_server_name(origin):
        raise InvalidOriginError("The origin in the X-Matrix header is no server name")
    if not is_valid_key_id(key_id):
        raise XMatrixError("The key in the X-Matrix header is no Ed25519 key ID")
    return Credentials(origin, parameters.get("destination"), key_id, signature)
