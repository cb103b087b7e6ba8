"""Servers on a loopback port, for tests that talk to them byte by byte."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from twisted.internet import reactor as real_reactor
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import deferLater

reactor: Any = real_reactor
P = TypeVar("P")
S = TypeVar("S", bound="LoopbackServer")


class LoopbackServer:
    """One port and the peers that dialled it, which have a ``transport`` and say when they are ``gone``."""

    def __init__(self, factory: Any) -> None:
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.peers: list[Any] = []

    async def dial(self, peer: P) -> P:
        """Connect `peer`, a protocol."""
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        await connectProtocol(endpoint, peer)  # type: ignore[type-var]
        self.peers.append(peer)
        return peer

    def close(self) -> None:
        """Close the port and every connection."""
        self.port.stopListening()
        for peer in self.peers:
            if not peer.gone:
                peer.transport.abortConnection()


def closed_after(kind: Callable[..., S]) -> Iterator[Callable[..., S]]:
    """For a fixture: what makes servers, all of which are closed when the test is over."""
    made: list[S] = []

    def make(**rest: Any) -> S:
        made.append(kind(**rest))
        return made[-1]

    yield make
    for server in made:
        server.close()


async def settle(wanted: Callable[[], Any]) -> None:
    """Let the reactor run until `wanted` is true."""
    for _ in range(1000):
        if wanted():
            return
        await deferLater(reactor, 0.005, lambda: None)
    raise AssertionError("it never came to that")
