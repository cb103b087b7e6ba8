"""Which IP addresses outgoing connections may go to. Pure.

An IPv6 address may carry an IPv4 address that some router or the kernel unpacks on the way (mapped, translated, 6to4,
NAT64, Teredo, ISATAP): it is refused when either what it is or what it carries is in a refused range.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_LAST_32_BITS = (
    IPv6Network("::ffff:0:0/96"),  # mapped, RFC 4291 section 2.5.5.2
    IPv6Network("::ffff:0:0:0/96"),  # translated, RFC 2765 section 2.1
    IPv6Network("::/96"),  # compatible, RFC 4291 section 2.5.5.1
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052 section 2.1
    IPv6Network("64:ff9b:1::/48"),  # local NAT64, RFC 8215, with a prefix of 96 bits
)
_6TO4 = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214 section 6.1


class AddressFilter:
    """The ranges that must not be connected to."""

    def __init__(self, refused: Iterable[str], allowed: Iterable[str] = ()) -> None:
        """Ranges in CIDR notation or single addresses; ``allowed`` wins over ``refused``. Raises ValueError."""
        self._refused = _Ranges(refused)
        self._allowed = _Ranges(allowed)

    def permits(self, address: str) -> bool:
        """Whether an address, in text, may be connected to. What is no address may not."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if self._allowed.contains(parsed):
            return True
        return not any(self._refused.contains(one) for one in (parsed, *carried_addresses(parsed)))


class _Ranges:
    def __init__(self, texts: Iterable[str]) -> None:
        networks = [ip_network(text, strict=False) for text in texts]
        self._v4 = [network for network in networks if isinstance(network, IPv4Network)]
        self._v6 = [network for network in networks if isinstance(network, IPv6Network)]

    def contains(self, address: Address) -> bool:
        if isinstance(address, IPv4Address):
            return any(address in network for network in self._v4)
        return any(address in network for network in self._v6)


def carried_addresses(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address may stand for."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    last = number & 0xFFFFFFFF
    if any(address in network for network in _LAST_32_BITS):
        yield IPv4Address(last)
    if address in _6TO4:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield IPv4Address(last ^ 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(last)
