"""federation.wire.discovery and resolver: every step of the specification, caches, back-off."""

import pytest
import pytest_twisted

from federation.wire.discovery import DiscoveryFailed, SrvRecord, Target, order_srv
from federation.wire.http import HttpAnswer, HttpRequest
from tests.fakes.wire import World, answer

FED, OLD = "_matrix-fed._tcp.", "_matrix._tcp."


def delegates(world: World, host: str, address: str, **headers: str) -> None:
    world.http.on(host, 443, lambda sent: answer({"m.server": address}, **headers))


def record(target: str, port: int, priority: int = 1, weight: int = 1) -> SrvRecord:
    return SrvRecord(priority, weight, port, target)


@pytest.mark.parametrize(
    ("name", "delegated", "srv", "expected", "number"),
    [
        ("1.2.3.4", None, {}, ("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4"), "1"),
        ("1.2.3.4:5", None, {}, ("1.2.3.4", 5, "1.2.3.4:5", "1.2.3.4"), "1"),
        ("[2001:db8::1]:5", None, {}, ("2001:db8::1", 5, "[2001:db8::1]:5", "2001:db8::1"), "1"),
        ("a.example:5", None, {}, ("a.example", 5, "a.example:5", "a.example"), "2"),
        ("a.example", "1.2.3.4", {}, ("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4"), "3.1"),
        ("a.example", "[::1]:7", {}, ("::1", 7, "[::1]:7", "::1"), "3.1"),
        ("a.example", "b.example:7", {}, ("b.example", 7, "b.example:7", "b.example"), "3.2"),
        ("a.example", "b.example", {FED + "b.example": [record("s.example", 9)]},
         ("s.example", 9, "b.example", "b.example"), "3.3"),
        ("a.example", "b.example", {OLD + "b.example": [record("s.example", 9)]},
         ("s.example", 9, "b.example", "b.example"), "3.4"),
        ("a.example", "b.example", {}, ("b.example", 8448, "b.example", "b.example"), "3.5"),
        ("a.example", None, {FED + "a.example": [record("s.example", 9)], OLD + "a.example": [record("t", 1)]},
         ("s.example", 9, "a.example", "a.example"), "4"),
        ("a.example", None, {OLD + "a.example": [record("s.example", 9)]},
         ("s.example", 9, "a.example", "a.example"), "5"),
        ("a.example", None, {}, ("a.example", 8448, "a.example", "a.example"), "6"),
        ("a.example", "not a name", {}, ("a.example", 8448, "a.example", "a.example"), "6"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_every_step(
    name: str, delegated: str | None, srv: dict[str, list[SrvRecord]], expected: tuple[object, ...], number: str
) -> None:
    world = World()
    world.dns.services = srv
    if delegated is not None:
        delegates(world, "a.example", delegated)
    route = await world.resolver.resolve(name)
    [target] = route.targets
    assert (target.host, target.port, route.host_header, route.tls_name) == expected
    assert route.steps[-1].number == number


@pytest_twisted.ensureDeferred
async def test_no_such_service_and_no_such_name() -> None:
    world = World()
    world.dns.services[FED + "a.example"] = [record(".", 0)]
    for name in ("a.example", "no name"):
        with pytest.raises(DiscoveryFailed):
            await world.resolver.resolve(name)


@pytest_twisted.ensureDeferred
async def test_a_name_server_in_trouble_is_passed_by() -> None:
    world = World()
    world.dns.broken = {FED + "a.example"}
    assert (await world.resolver.resolve("a.example")).targets == (Target("a.example", 8448),)


def test_srv_records_by_priority_then_weight() -> None:
    records = [record("c", 1, 2), record("a", 1, 1, 0), record("b", 1, 1, 100)]
    assert [one.target for one in order_srv(records, lambda: 0.5)] == ["b", "a", "c"]
    assert [one.target for one in order_srv(records, lambda: 0.0)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("cache_control", "minutes"),
    [("max-age=3600", 60), ("max-age=1", 5), ("max-age=99999999999999", 48 * 60), ("", 24 * 60), ("no-store", 5)],
)
@pytest_twisted.ensureDeferred
async def test_e05_cache_lifetime_is_bounded(cache_control: str, minutes: int) -> None:
    world = World()
    delegates(world, "a.example", "b.example:1", cache_control=cache_control)
    await world.resolver.resolve("a.example")
    world.now += minutes * 60_000 - 1
    await world.resolver.resolve("a.example")
    assert len(world.http.sent) == 1
    world.now += 1
    await world.resolver.resolve("a.example")
    assert len(world.http.sent) == 2


@pytest_twisted.ensureDeferred
async def test_e05_failures_are_cached_with_growing_back_off() -> None:
    world = World()
    fetches = []
    for _ in range(24 * 60):
        await world.resolver.resolve("a.example")
        fetches.append(len(world.http.sent))
        world.now += 60_000
    assert fetches[1] == 1 and fetches[2] == 2
    assert 24 <= fetches[-1] <= 30  # hourly in the end


@pytest_twisted.ensureDeferred
async def test_i15_a_wall_clock_that_is_set_changes_no_wait_for_a_record() -> None:
    world = World()
    world.wall_error_ms = 11 * 3_600_000
    await world.resolver.resolve("a.example")
    world.wall_error_ms = 0
    world.now += 120_000
    await world.resolver.resolve("a.example")
    assert len(world.http.sent) == 2


def redirects(world: World, count: int) -> None:
    def serve(sent: HttpRequest) -> HttpAnswer:
        number = int(sent.path[2:]) if sent.path.startswith("/r") else 0
        if number == count:
            return answer({"m.server": "b.example:1"})
        return answer(b"", 302, location=f"/r{number + 1}")

    world.http.on("a.example", 443, serve)


@pytest.mark.parametrize(("count", "port"), [(5, 1), (6, 8448)])
@pytest_twisted.ensureDeferred
async def test_e05_redirects_are_counted(count: int, port: int) -> None:
    world = World()
    redirects(world, count)
    assert (await world.resolver.resolve("a.example")).targets[0].port == port
    assert len(world.http.sent) == 6
    assert not any("Authorization" in sent.headers for sent in world.http.sent)


@pytest.mark.parametrize("location", ["http://b.example/x", "ftp://b.example/", "https://u@b.example/", "https://a b/"])
@pytest_twisted.ensureDeferred
async def test_e05_redirects_to_odd_places_are_not_followed(location: str) -> None:
    world = World()
    world.http.on("a.example", 443, lambda sent: answer(b"", 301, location=location))
    assert (await world.resolver.resolve("a.example")).targets[0].port == 8448
    assert len(world.http.sent) == 1


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"m.server": 1}', b'{"m.server": "b:1"' + b" " * 60_000 + b"}", b"\xff", b"[" * 9999]
)
@pytest_twisted.ensureDeferred
async def test_e05_bad_documents_are_as_if_there_were_none(body: bytes) -> None:
    world = World()
    world.http.on("a.example", 443, lambda sent: answer(body))
    assert (await world.resolver.resolve("a.example")).targets[0].port == 8448
