"""Our signed well-known record as a document: what ``folkmoot well-known`` prints."""

import json
from collections.abc import Callable
from typing import Any

from config.schema import Config
from federation.inbound.wellknown import own_address
from federation.rules.endpoint import parse_server_name
from federation.rules.signing import SigningKey
from federation.wire.own_keys import OwnKeys


class NoRecord(Exception):
    """There can be no record; the message says why and what to do."""


def record_of(config: Config, keys: list[SigningKey], now_ms: Callable[[], int]) -> dict[str, Any]:
    """The record that the server of ``config`` would serve now, signed with each of its keys. Raises NoRecord."""
    name = parse_server_name(config.server_name)
    if name is None or name.port is not None or name.is_ip_literal:
        raise NoRecord(
            f"{config.server_name} is an address or has a port: other servers go there and never look for a record"
        )
    own = OwnKeys(config.server_name, keys, {}, config.key_refresh_interval, now_ms)
    return own.well_known_record(own_address(config.server_name, config.public_baseurl))


def as_document(record: dict[str, Any], compact: bool) -> str:
    """A record as a web host may serve it; the spaces don't matter to the signature."""
    return json.dumps(record, separators=(",", ":")) if compact else json.dumps(record, indent=2)
