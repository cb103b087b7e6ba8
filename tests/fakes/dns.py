"""DNS as two maps that a test fills in."""

from dataclasses import dataclass, field

from federation.wire.discovery import SrvRecord
from federation.wire.dns import DnsFailure


@dataclass
class FakeDns:
    """``hosts``: name to addresses. ``services``: SRV name to records. Names in ``broken`` fail."""

    hosts: dict[str, list[str]] = field(default_factory=dict)
    services: dict[str, list[SrvRecord]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def addresses(self, host: str) -> list[str]:
        self.asked.append(host)
        if host in self.broken:
            raise DnsFailure(host)
        return self.hosts.get(host, [])

    async def srv(self, name: str) -> list[SrvRecord]:
        self.asked.append(name)
        if name in self.broken:
            raise DnsFailure(name)
        return self.services.get(name, [])
