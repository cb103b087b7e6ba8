"""DNS for outgoing connections: addresses as the operating system knows them, SRV records from its name servers."""

import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.threads import deferToThreadPool
from twisted.names import client, dns
from twisted.names.error import DNSNameError, DomainError
from twisted.python.threadpool import ThreadPool

from federation.wire.discovery import SrvRecord

SECONDS = 10.0
MAX_ADDRESSES = 16
MAX_SRV = 20


class DnsFailure(Exception):
    """No answer, for now; not the same as the answer that there is nothing."""


class Dns(Protocol):
    """What the wire asks of DNS."""

    async def addresses(self, host: str) -> list[str]:
        """The IP addresses of a host in order of preference, none when it does not exist. Raises DnsFailure."""

    async def srv(self, name: str) -> list[SrvRecord]:
        """The SRV records of a name, none when there are none. Raises DnsFailure."""


class SystemDns:
    """The system's resolver, in threads of its own: a name server that hangs holds up nothing else."""

    def __init__(self, reactor: Any, threads: int = 8) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, threads, "resolver")
        self._started = False
        self._resolver: Any = None

    async def addresses(self, host: str) -> list[str]:
        """By getaddrinfo, which also reads /etc/hosts and sorts by what is reachable (RFC 6724)."""
        if not self._started:
            self._started = True
            self._pool.start()
        try:
            work: Deferred[list[str]] = deferToThreadPool(self._reactor, self._pool, _lookup, host)
            return await work.addTimeout(SECONDS, self._reactor)
        except (OSError, UnicodeError, TimeoutError) as problem:
            raise DnsFailure(f"{host} cannot be resolved ({problem})") from problem

    async def srv(self, name: str) -> list[SrvRecord]:
        """By the name servers of /etc/resolv.conf."""
        if self._resolver is None:
            self._resolver = client.createResolver()
        try:
            answers, _, _ = await self._resolver.lookupService(name, timeout=(2, 4)).addTimeout(
                SECONDS, self._reactor
            )
        except DNSNameError:
            return []
        except (DomainError, OSError, TimeoutError, NotImplementedError) as problem:
            raise DnsFailure(f"{name} cannot be looked up ({type(problem).__name__})") from problem
        payloads = [answer.payload for answer in answers if answer.type == dns.SRV][:MAX_SRV]
        return [
            SrvRecord(one.priority, one.weight, one.port, one.target.name.decode("ascii", "replace"))
            for one in payloads
        ]

    def stop(self) -> None:
        """End the threads."""
        if self._started:
            self._pool.stop()


def _lookup(host: str) -> list[str]:
    """Names below ``localhost`` are this machine and no matter for name servers (RFC 6761 section 6.3); few systems know."""
    if host.rstrip(".").lower().endswith(".localhost"):
        host = "localhost"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as problem:
        if problem.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return []
        raise
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))[:MAX_ADDRESSES]
