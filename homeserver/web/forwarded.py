"""Whose request it is behind a reverse proxy (RFC 7239 section 7.4 on why most of the header is hearsay)."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class TrustedProxies:
    """The networks whose ``X-Forwarded-For`` is believed."""

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks` in CIDR notation. Raises ValueError for a malformed one."""
        self._networks = tuple(ip_network(network, strict=False) for network in networks)

    def trusts(self, peer: str) -> bool:
        """Whether the peer is one of them. An empty peer is a process on this machine, through a Unix
        socket.
        """
        return not peer or self._holds(parse_address(peer))

    def client_address(self, peer: str, forwarded_for: str | None) -> str:
        """The client's address: the last one in the chain that is no proxy of ours, or the peer itself.

        Each proxy appends whom it heard from, so that only what trusted proxies wrote, from the right,
        counts.
        """
        if forwarded_for is None or not self.trusts(peer):
            return peer
        client = peer
        for text in reversed(forwarded_for.split(",")):
            address = parse_address(text.strip())
            if address is None:
                break
            client = str(address)
            if not self._holds(address):
                break
        return client

    def _holds(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def parse_address(text: str) -> Address | None:
    """An IP address, its zone and an IPv4-mapped form undone; None for anything else."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
