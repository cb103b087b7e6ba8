"""The way out to other servers: names and requests. The system's own, unless a server is given another one."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from config.schema import Config
from federation.wire.addresses import AddressFilter
from federation.wire.dns import Dns, SystemDns
from federation.wire.http import Http, TwistedHttp
from federation.wire.tls import TlsPolicy


class Network(NamedTuple):
    """What a server reaches others by; ``close`` ends its connections and threads."""

    dns: Dns
    http: Http
    close: Callable[[], Awaitable[None]]


def system_network(config: Config, reactor: Any) -> Network:
    """Name servers and TLS connections as the configuration wants them."""
    dns = SystemDns(reactor)
    tls = TlsPolicy(
        config.federation_verify_certificates,
        config.federation_certificate_verification_whitelist,
        config.federation_custom_ca_list,
    )
    http = TwistedHttp(reactor, dns, tls, AddressFilter(config.federation_ip_range_blacklist))

    async def close() -> None:
        dns.stop()
        await http.close()

    return Network(dns, http, close)
