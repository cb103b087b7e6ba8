"""Finds another server and tells how: what ``folkmoot resolve`` prints. Needs no running server.

It looks with fresh eyes (no caches), through the same code, addresses, authorities and policies as the server. What
it sees pins nothing. In the end it asks the server for its keys: whether it is there, and its certificate good.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from config.schema import Config
from federation.rules import canonical_json
from federation.rules.endpoint import parse_server_name
from federation.rules.errors import MatrixError
from federation.rules.hashes import encode_base64
from federation.wire.addresses import AddressFilter
from federation.wire.discovery import DiscoveryFailed, Route, Step, Target
from federation.wire.dns import Dns, SystemDns
from federation.wire.domains import Domains
from federation.wire.http import ConnectFailure, Http, HttpAnswer, HttpFailure, HttpRequest, TwistedHttp, permitted_addresses
from federation.wire.key_answers import MAX_ANSWER_BYTES, KeyAnswerError, ServerKey, check
from federation.wire.pins import pin_of_row
from federation.wire.resolver import Resolver
from federation.wire.tls import TlsPolicy
from federation.wire.well_known import Pin, Policy, Verdict
from federation.wire.well_known_fetch import WellKnownFetch
from storage.tables.database_connection import Connection
from storage.tables.database_open import external_parameters
from storage.tables.embedded import EmbeddedPostgres
from storage.tables.well_known_pins import pin_of_domain

KEYS_PATH = "/_matrix/key/v2/server"
KEYS_SECONDS = 20.0
DATABASE_SECONDS = 3


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a server is found, or why not.

    ``failure`` is None when the server answered there, with its keys (``key_ids``). ``pin`` is what the
    running server had pinned before; ``pins_problem`` says why that could not be read, "" when it was.
    ``targets`` are where to connect, each with its addresses, or with the reason why there are none.
    """

    server_name: str
    steps: tuple[Step, ...]
    policy: Policy
    verdict: Verdict | None
    pin: Pin | None
    pins_problem: str
    route: Route | None = None
    targets: tuple[tuple[Target, list[str] | str], ...] = ()
    key_ids: tuple[str, ...] = ()
    failure: str | None = None


class RememberedPin:
    """``resolver.Pins`` with one domain's pin, which takes no others: a look changes nothing."""

    def __init__(self, pin: Pin | None) -> None:
        self._pin = pin

    async def get(self, server_name: str) -> Pin | None:
        """The pin that was stored."""
        return self._pin

    async def put(self, server_name: str, pin: Pin) -> None:
        """Only the running server pins."""


class AskedKeys:
    """``resolver.PublishedKeys`` by asking each time."""

    def __init__(self, resolver: Resolver, http: Http, now_ms: Callable[[], int], user_agent: str) -> None:
        self._resolver = resolver
        self._http = http
        self._now_ms = now_ms
        self._headers = {"User-Agent": user_agent}

    async def published(self, server_name: str, address: str, key_ids: tuple[str, ...]) -> Mapping[str, bytes]:
        """Keys as the server at the delegated ``address`` publishes them; none when they can't be had."""
        try:
            keys = await self.at(await self._resolver.resolve_delegated(address), server_name)
        except (DiscoveryFailed, HttpFailure, KeyAnswerError):
            return {}
        return {one: bytes(keys[one].verify_key) for one in key_ids if one in keys}

    async def at(self, route: Route, server_name: str) -> Mapping[str, ServerKey]:
        """Keys as the server at the end of a route publishes them. Raises HttpFailure, KeyAnswerError."""
        problem = ConnectFailure("there is no address to connect to")
        for target in route.targets:
            request = HttpRequest(target, route.tls_name, route.host_header, "GET", KEYS_PATH, self._headers)
            try:
                answer = await self._http.request(request, KEYS_SECONDS, MAX_ANSWER_BYTES)
            except ConnectFailure as failure:
                problem = failure
                continue
            return _keys_in(answer, server_name, self._now_ms())
        raise problem


def _keys_in(answer: HttpAnswer, server_name: str, now_ms: int) -> Mapping[str, ServerKey]:
    if answer.status != 200:
        raise KeyAnswerError(f"status {answer.status} to {KEYS_PATH}")
    try:
        found = check(canonical_json.decode_strict(answer.body), now_ms)
    except MatrixError as problem:
        raise KeyAnswerError(problem.error) from None
    if found.server_name != server_name:
        raise KeyAnswerError(f"{found.server_name} is there")
    return found.keys


async def look(
    config: Config,
    server_name: str,
    http: Http,
    dns: Dns,
    now_ms: Callable[[], int],
    pin: Pin | None = None,
    pins_problem: str = "",
) -> Resolution:
    """Find a server once. Never raises for what another server does."""
    policies = config.federation_well_known_policy

    def policy_of(name: str) -> Policy:
        return policies.domains.get(name, policies.default)

    user_agent = f"Folkmoot/{metadata.version('folkmoot')}"
    resolver = Resolver(
        WellKnownFetch(http, now_ms, user_agent), dns, RememberedPin(pin), policy_of, now_ms, now_ms, random.random
    )
    resolver.keys = asked = AskedKeys(resolver, http, now_ms, user_agent)
    parsed = parse_server_name(server_name)
    host = parsed.host if parsed is not None else server_name
    route: Route | None = None
    failure: str | None = None
    targets: tuple[tuple[Target, list[str] | str], ...] = ()
    key_ids: tuple[str, ...] = ()
    permitted = Domains(config.federation_domain_whitelist, config.federation_domain_denylist).permit(server_name)
    try:
        route = await resolver.resolve(server_name)
        steps = route.steps
        targets = tuple([(one, await _addresses(config, dns, one)) for one in route.targets])
        if all(isinstance(addresses, str) for _, addresses in targets):
            failure = "there is no address to connect to"
        elif permitted:
            found = await asked.at(route, server_name)
            key_ids = tuple(key_id for key_id, key in found.items() if key.valid_until_ts > now_ms())
    except DiscoveryFailed as problem:
        steps, failure = problem.steps, problem.reason
    except (HttpFailure, KeyAnswerError) as problem:
        failure = f"it does not tell its keys ({problem})"
    if not permitted:
        failure = "the configuration does not allow this server"
    verdict = resolver.verdict_of(host)
    return Resolution(server_name, steps, policy_of(host), verdict, pin, pins_problem, route, targets, key_ids, failure)


async def _addresses(config: Config, dns: Dns, target: Target) -> list[str] | str:
    try:
        return await permitted_addresses(dns, AddressFilter(config.federation_ip_range_blacklist), target.host)
    except ConnectFailure as problem:
        return str(problem)


def stored_pin(config: Config, server_name: str) -> tuple[Pin | None, str]:
    """What the running server has pinned of a domain, and why that cannot be read ("" when it can). Blocks."""
    parsed = parse_server_name(server_name)
    if parsed is None:
        return None, ""
    try:
        if config.database is not None:
            parameters = external_parameters(config.database)
        else:
            data_dir = Path(config.data_dir)
            if not data_dir.is_dir():
                return None, "there is no data directory"
            parameters = EmbeddedPostgres(data_dir).parameters
        connection = Connection(parameters | {"connect_timeout": DATABASE_SECONDS}, statement_timeout_ms=DATABASE_SECONDS * 1000)
        try:
            row = pin_of_domain(connection.raw.cursor(), parsed.host)
        finally:
            connection.close()
    except Exception as problem:  # a look without the database is better than none
        return None, (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    return (pin_of_row(row) if row is not None else None), ""


def resolve(config: Config, server_name: str, now_ms: Callable[[], int]) -> Resolution:
    """Find a server from a process that runs nothing else. Raises KeyboardInterrupt."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    pin, problem = stored_pin(config, server_name)
    outcomes: list[Any] = []

    async def work() -> Resolution:
        dns = SystemDns(reactor)
        tls = TlsPolicy(
            config.federation_verify_certificates,
            config.federation_certificate_verification_whitelist,
            config.federation_custom_ca_list,
        )
        http = TwistedHttp(reactor, dns, tls, AddressFilter(config.federation_ip_range_blacklist))
        try:
            return await look(config, server_name, http, dns, now_ms, pin, problem)
        finally:
            dns.stop()
            await http.close()

    def begin() -> None:
        Deferred.fromCoroutine(work()).addBoth(outcomes.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if not outcomes:
        raise KeyboardInterrupt
    if isinstance(outcomes[0], Failure):
        outcomes[0].raiseException()
    found: Resolution = outcomes[0]
    return found


def as_text(found: Resolution) -> str:
    """For people."""
    lines = [f"step {step.number}: {step.action}: {step.outcome}" for step in found.steps]
    if found.verdict is not None:
        lines.append(f"record (policy {found.policy}): {found.verdict.outcome.value}: {found.verdict.reason}")
        if found.pins_problem:
            lines.append(f"pin: not read ({found.pins_problem}): judged as if the domain had never been seen")
        elif found.pin is not None:
            lines.append(f"pin: {', '.join(found.pin.keys)}, last good address {found.pin.address},"
                         f" record valid until {_date(found.pin.valid_until_ts)}")  # fmt: skip
        else:
            lines.append("pin: none")
    for target, addresses in found.targets:
        told = addresses if isinstance(addresses, str) else ", ".join(addresses)
        lines.append(f"connect to: {target.host} port {target.port}: {told}")
    if found.route is not None:
        lines.append(f"Host: {found.route.host_header}; certificate for: {found.route.tls_name}")
    if found.key_ids:
        lines.append(f"{found.server_name} answers; its keys: {', '.join(found.key_ids)}")
    if found.failure is not None:
        lines.append(f"{found.server_name} cannot be reached: {found.failure}")
    return "\n".join(lines)


def as_facts(found: Resolution) -> dict[str, Any]:
    """For scripts; times in milliseconds since the epoch."""
    verdict, pin, route = found.verdict, found.pin, found.route
    return {
        "server_name": found.server_name,
        "steps": [step._asdict() for step in found.steps],
        "policy": found.policy,
        "record": verdict
        and {"outcome": verdict.outcome.value, "address": verdict.address, "reason": verdict.reason},
        "pin": pin
        and {
            "keys": {key_id: encode_base64(key) for key_id, key in pin.keys.items()},
            "address": pin.address,
            "valid_until_ts": pin.valid_until_ts,
        },
        "pin_problem": found.pins_problem,
        "targets": [
            {"host": target.host, "port": target.port}
            | ({"problem": addresses} if isinstance(addresses, str) else {"addresses": addresses})
            for target, addresses in found.targets
        ],
        "host_header": route.host_header if route is not None else None,
        "tls_name": route.tls_name if route is not None else None,
        "keys": found.key_ids,
        "problems": [found.failure] if found.failure is not None else [],
    }


def _date(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "minutes")
    except (OverflowError, ValueError, OSError):
        return str(ms)
