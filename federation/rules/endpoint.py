"""Server names as addresses: host and port, DNS name or IP literal.

Specification: Appendices, "Server Name". Resolving a name into something to connect to is not done here.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Literal, NamedTuple

MAX_SERVER_NAME_BYTES = 255
MAX_REMEMBERED = 4096
"""Names whose parts are remembered: the same few servers stand in the ids of nearly all events."""

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_DNS_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*", re.ASCII)
_DOTTED_QUAD = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", re.ASCII)
_IPV6_CHARS = re.compile(r"[0-9A-Fa-f:.]{2,45}", re.ASCII)


class ServerName(NamedTuple):
    """A server name taken apart.

    ``host`` is without brackets; ``port`` is None when the name carries none.
    """

    host: str
    port: int | None
    kind: Literal["ipv4", "ipv6", "dns"]

    @property
    def is_ip_literal(self) -> bool:
        """Whether the host is an address, so that no DNS lookup takes place."""
        return self.kind != "dns"


def parse_server_name(name: str) -> ServerName | None:
    """Take a server name apart, or None when the grammar does not allow it.

    Empty DNS labels (``..``, a leading or trailing dot) are refused although the bare grammar lets them pass:
    such names neither resolve nor are fit for a path. So are ports that no socket has (0, 65536 and up).
    """
    return _parsed(name) if 0 < len(name) <= MAX_SERVER_NAME_BYTES else None


@lru_cache(maxsize=MAX_REMEMBERED)
def _parsed(name: str) -> ServerName | None:
    host, port = _split_port(name)
    if host is None:
        return None
    if port is None:
        return _parse_host(host, None)
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        return None
    return _parse_host(host, int(port))


def _split_port(name: str) -> tuple[str | None, str | None]:
    if name.startswith("["):
        literal, bracket, rest = name.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None, None
        return literal + bracket, rest[1:] if rest else None
    host, colon, port = name.partition(":")
    return host, port if colon else None


def _parse_host(host: str, port: int | None) -> ServerName | None:
    if host.startswith("["):
        literal = host[1:-1]
        if not _IPV6_CHARS.fullmatch(literal):
            return None
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            return None
        return ServerName(literal, port, "ipv6")
    if _DOTTED_QUAD.fullmatch(host):
        if any(int(number) > 255 for number in host.split(".")):
            return None
        return ServerName(host, port, "ipv4")
    if not _DNS_NAME.fullmatch(host):
        return None
    return ServerName(host, port, "dns")
