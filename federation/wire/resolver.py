"""Finds the way to a server: drives discovery, keeps caches, and decides about signed well-known records."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.wire.discovery import (
    DiscoveryFailed,
    Found,
    Route,
    SrvFound,
    Step,
    WantWellKnown,
    WellKnownFound,
    discover,
    order_srv,
)
from federation.wire.dns import Dns, DnsFailure
from federation.wire.well_known import Outcome, Pin, Policy, Verdict, decide, signing_key_ids
from federation.wire.well_known_fetch import HOUR_MS, MINUTE_MS, PATH, Fetched, WellKnownFetch

MAX_CACHED = 20_000
SRV_LIFETIME_MS = 5 * MINUTE_MS
ERROR_LIFETIME_MS = 2 * MINUTE_MS
MAX_ERROR_LIFETIME_MS = HOUR_MS

_T = TypeVar("_T")
_log = Logger()


class Pins(Protocol):
    """Keeps the pins of domains."""

    async def get(self, server_name: str) -> Pin | None:
        """The pin of a domain."""

    async def put(self, server_name: str, pin: Pin) -> None:
        """Pin a domain, durable when it returns."""


class PublishedKeys(Protocol):
    """Knows the public keys that a domain publishes."""

    async def published(self, server_name: str, address: str, key_ids: tuple[str, ...]) -> Mapping[str, bytes]:
        """Keys of a domain, known from before or asked of the delegated ``address``; none when they can't be had."""


@dataclass(frozen=True, slots=True)
class _Kept:
    verdict: Verdict
    note: str
    until: int
    failures: int


class Resolver:
    """Routes to servers, with caches and the policy on signed records."""

    def __init__(
        self,
        fetch: WellKnownFetch,
        dns: Dns,
        pins: Pins,
        policy_of: Callable[[str], Policy],
        now_ms: Callable[[], int],
        steady_ms: Callable[[], int],
        random: Callable[[], float],
    ) -> None:
        """Records expire by the wall clock, ``now_ms``; what is kept is kept by ``steady_ms``.

        ``random`` gives numbers in [0, 1). Set ``keys`` before the first use (the key ring needs this object)."""
        self.keys: PublishedKeys | None = None
        self._fetch = fetch
        self._dns = dns
        self._pins = pins
        self._policy_of = policy_of
        self._now_ms = now_ms
        self._steady_ms = steady_ms
        self._random = random
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._srv: OrderedDict[str, tuple[SrvFound, int]] = OrderedDict()
        self._under_way: dict[str, list[Deferred[_Kept]]] = {}

    async def resolve(self, server_name: str) -> Route:
        """The way to a server, its ``steps`` telling how it was found. Raises DiscoveryFailed."""
        return await self._drive(server_name, self._well_known)

    async def resolve_delegated(self, address: str) -> Route:
        """The way to an ``m.server`` value, without a look at a well-known document. Raises DiscoveryFailed."""

        async def itself(_host: str) -> WellKnownFound:
            return WellKnownFound(None, "delegated already")

        return await self._drive(address, itself)

    def verdict_of(self, host: str) -> Verdict | None:
        """The last decision about a domain, None when it is not kept."""
        kept = self._kept.get(host)
        return kept.verdict if kept is not None else None

    def forget(self, host: str) -> None:
        """Look again next time."""
        self._kept.pop(host, None)

    async def _drive(
        self, server_name: str, well_known: Callable[[str], Awaitable[WellKnownFound]]
    ) -> Route:
        machine = discover(server_name)
        try:
            want = next(machine)
            while True:
                found: Found
                if isinstance(want, WantWellKnown):
                    found = await well_known(want.host)
                else:
                    found = await self._look_up_srv(want.name)
                want = machine.send(found)
        except StopIteration as end:
            route: Route = end.value
            return route

    async def _look_up_srv(self, name: str) -> SrvFound:
        kept = self._srv.get(name)
        if kept is not None and kept[1] > self._steady_ms():
            return kept[0]
        try:
            records = order_srv(await self._dns.srv(name), self._random)
            note = ", ".join(f"{one.target} port {one.port}" for one in records) or "none"
            found, lifetime = SrvFound(records, note), SRV_LIFETIME_MS
        except DnsFailure as failure:
            # The certificate is checked for the same name whichever way is taken, so going on is safe.
            found, lifetime = SrvFound((), str(failure)), MINUTE_MS
        _keep(self._srv, name, (found, self._steady_ms() + lifetime))
        return found

    async def _well_known(self, host: str) -> WellKnownFound:
        kept = self._kept.get(host)
        if kept is None or kept.until <= self._steady_ms():
            kept = await self._once(host)
        verdict = kept.verdict
        note = f"{kept.note}; {verdict.outcome.value}: {verdict.reason}"
        if verdict.outcome is Outcome.REFUSE:
            step = Step("3", f"https://{host}{PATH}", note)
            raise DiscoveryFailed(f"{host}: {verdict.reason}", [step])
        return WellKnownFound(verdict.address, note)

    async def _once(self, host: str) -> _Kept:
        """Whoever asks while it is being asked waits for the same answer."""
        waiting = self._under_way.get(host)
        if waiting is not None:
            later: Deferred[_Kept] = Deferred()
            waiting.append(later)
            return await later
        self._under_way[host] = []
        try:
            kept = await self._look(host)
        except BaseException as problem:
            for later in self._under_way.pop(host):
                later.errback(problem)
            raise
        for later in self._under_way.pop(host):
            later.callback(kept)
        return kept

    async def _look(self, host: str) -> _Kept:
        fetched = await self._fetch.fetch(host)
        verdict = await self._decide(host, fetched)
        before = self._kept.get(host)
        failures = 0
        lifetime = fetched.lifetime_ms
        if fetched.record is None or verdict.outcome in (Outcome.KEEP, Outcome.REFUSE):
            failures = before.failures + 1 if before is not None else 1
            lifetime = min(ERROR_LIFETIME_MS << min(failures - 1, 10), MAX_ERROR_LIFETIME_MS)
        if verdict.trouble:
            _log.warn("well-known record of {host}: {reason}", host=host, reason=verdict.reason)
        kept = _Kept(verdict, fetched.note, self._steady_ms() + lifetime, failures)
        _keep(self._kept, host, kept)
        return kept

    async def _decide(self, host: str, fetched: Fetched) -> Verdict:
        policy = self._policy_of(host)
        record = fetched.record
        pin = await self._pins.get(host) if policy != "ignore" else None
        keys: Mapping[str, bytes] = {}
        if record is not None and record.signed and policy != "ignore":
            unknown = tuple(one for one in signing_key_ids(record, host) if pin is None or one not in pin.keys)
            # Asked only where a pinned key vouches for the address already, or nobody could vouch for it yet.
            vouched = pin is None or decide(host, policy, pin, record, {}, self._now_ms()).pin is not None
            if unknown and vouched and self.keys is not None:
                keys = await self.keys.published(host, record.address, unknown)
        verdict = decide(host, policy, pin, record, keys, self._now_ms())
        if verdict.pin is not None and verdict.pin != pin:
            await self._pins.put(host, verdict.pin)
        return verdict


def _keep(cache: "OrderedDict[str, _T]", key: str, value: "_T") -> None:
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > MAX_CACHED:
        cache.popitem(last=False)
