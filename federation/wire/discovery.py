"""Server discovery as a machine without I/O: it says what to look up, is told the outcome, and ends with a route.

Specification: Server-Server API, "Server discovery"; the numbers of the steps are the specification's. Who drives it
(``resolver``) fetches, asks DNS, keeps caches and decides about signed records.
"""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from federation.rules.endpoint import ServerName, parse_server_name

DEFAULT_PORT = 8448


class WantWellKnown(NamedTuple):
    """Look at ``https://<host>/.well-known/matrix/server``. To be answered with WellKnownFound."""

    host: str


class WantSrv(NamedTuple):
    """Look up an SRV record. To be answered with SrvFound."""

    name: str


class WellKnownFound(NamedTuple):
    """``address`` is the delegated server name, None when there is none; ``note`` tells what happened."""

    address: str | None
    note: str


class SrvRecord(NamedTuple):
    """One SRV record, RFC 2782."""

    priority: int
    weight: int
    port: int
    target: str


class SrvFound(NamedTuple):
    """Records in the order in which to try them (``order_srv``), none when there are none."""

    records: tuple[SrvRecord, ...]
    note: str


class Target(NamedTuple):
    """Where to connect: an IP literal (without brackets) or a DNS name, and a port."""

    host: str
    port: int


class Step(NamedTuple):
    """One step taken: its number in the specification, what was done, what came of it."""

    number: str
    action: str
    outcome: str


class Route(NamedTuple):
    """How to reach a server: targets to try in order, the ``Host`` header, and the name that the certificate has to
    carry (also the SNI, unless it is an IP address).
    """

    targets: tuple[Target, ...]
    host_header: str
    tls_name: str
    steps: tuple[Step, ...]


class DiscoveryFailed(Exception):
    """There is no way to reach the server; the message says why. ``steps`` were taken until then."""

    def __init__(self, reason: str, steps: Sequence[Step] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps = tuple(steps)


Want = WantWellKnown | WantSrv
Found = WellKnownFound | SrvFound
Discovery = Generator[Want, Found, Route]


def discover(server_name: str) -> Discovery:
    """Discover a server. Raises DiscoveryFailed."""
    name = parse_server_name(server_name)
    if name is None:
        raise DiscoveryFailed("not a server name")
    steps: list[Step] = []
    if name.is_ip_literal:
        return _literal("1", name, server_name, steps)
    if name.port is not None:
        return _explicit_port("2", name, server_name, steps)
    found = yield WantWellKnown(name.host)
    assert isinstance(found, WellKnownFound)
    steps.append(Step("3", f"https://{name.host}/.well-known/matrix/server", found.note))
    if found.address is None:
        return (yield from _by_srv(name.host, ("4", "5", "6"), steps))
    delegated = parse_server_name(found.address)
    if delegated is None:
        raise DiscoveryFailed("m.server is not a server name", steps)
    if delegated.is_ip_literal:
        return _literal("3.1", delegated, found.address, steps)
    if delegated.port is not None:
        return _explicit_port("3.2", delegated, found.address, steps)
    return (yield from _by_srv(delegated.host, ("3.3", "3.4", "3.5"), steps))


def _literal(number: str, name: ServerName, text: str, steps: list[Step]) -> Route:
    port = name.port or DEFAULT_PORT
    steps.append(Step(number, f"IP literal {name.host}", f"port {port}"))
    return Route((Target(name.host, port),), text, name.host, tuple(steps))


def _explicit_port(number: str, name: ServerName, text: str, steps: list[Step]) -> Route:
    port = name.port or DEFAULT_PORT
    steps.append(Step(number, f"explicit port of {text}", f"{name.host} port {port}"))
    return Route((Target(name.host, port),), text, name.host, tuple(steps))


def _by_srv(host: str, numbers: tuple[str, str, str], steps: list[Step]) -> Discovery:
    for number, service in zip(numbers, ("_matrix-fed._tcp", "_matrix._tcp"), strict=False):
        found = yield WantSrv(f"{service}.{host}")
        assert isinstance(found, SrvFound)
        steps.append(Step(number, f"SRV {service}.{host}", found.note))
        if not found.records:
            continue
        # RFC 2782: a single record with the target "." says that there is decidedly no such service.
        targets = tuple(Target(one.target, one.port) for one in found.records if one.target not in ("", "."))
        if not targets:
            raise DiscoveryFailed(f"{service}.{host} says that there is no server", steps)
        return Route(targets, host, host, tuple(steps))
    steps.append(Step(numbers[2], f"{host} itself", f"port {DEFAULT_PORT}"))
    return Route((Target(host, DEFAULT_PORT),), host, host, tuple(steps))


def order_srv(records: Sequence[SrvRecord], random: Callable[[], float]) -> tuple[SrvRecord, ...]:
    """Records by priority, and within one by chance in proportion to their weight (RFC 2782). At most 10."""
    ordered: list[SrvRecord] = []
    for priority in sorted({record.priority for record in records}):
        left = sorted((one for one in records if one.priority == priority), key=lambda one: one.weight)
        while left:
            mark = random() * sum(one.weight for one in left)
            for one in left:
                mark -= one.weight
                if mark <= 0:
                    break
            left.remove(one)
            ordered.append(one)
    return tuple(ordered[:10])
