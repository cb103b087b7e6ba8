"""Changing push rules, and how they are kept."""

from typing import Any

import orjson
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from federation.rules.errors import MatrixError
from homeserver.client.pushrules import PushRulesApi
from homeserver.push.default_rules import default_rules
from homeserver.push.push_rules import PushRules
from homeserver.push.rules import FlatEvent, Person, evaluate
from homeserver.web.call import Call, Requester
from homeserver.web.routes import RouteTable
from storage.log.account_data import datum
from storage.log.append import Kind
from storage.memory import MemoryLog

ME = '@m"e:here'
NOTIFY = {"actions": ["notify"]}


class Client:
    def __init__(self) -> None:
        self.log = MemoryLog(reactor)  # type: ignore[arg-type]
        self.entries: list[Any] = []
        self.log.on_release = lambda position, entries: self.entries.extend(entries)
        self.rules = PushRules(self.log)
        self._routes = {(route.method, route.path): route for route in PushRulesApi(self.rules).routes()}

    async def __call__(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        target = "/x?" + "&".join(f"{name}={value}" for name, value in query.items())
        call = Call(method, target, {}, b"" if body is None else orjson.dumps(body))
        call.sender = Requester(ME, "PHONE")
        parts = path.split()
        template = path
        if len(parts) > 1:
            call.params = {"kind": parts[0], "ruleId": parts[1]}
            template = "global/{kind}/{ruleId}" + "".join("/" + part for part in parts[2:])
        answer = self._routes[method, "/_matrix/client/v3/pushrules/" + template].handler(call)
        return answer if type(answer) is dict else await answer

    async def own(self, kind: str) -> list[str]:
        rules = (await self("GET", ""))["global"][kind]
        return [rule["rule_id"] for rule in rules if not rule["default"]]

    def content(self) -> Any:
        with self.log.snapshot() as snapshot:
            return orjson.loads(self.rules.content(snapshot, ME))


async def refused(awaitable: Any, status: int, errcode: str) -> None:
    with pytest.raises(MatrixError) as error:
        await awaitable
    assert (error.value.status, error.value.errcode) == (status, errcode)


@ensureDeferred
async def test_everybody_begins_with_the_default_rules() -> None:
    client = Client()
    assert await client("GET", "") == {"global": default_rules(ME)} == client.content()
    assert await client("GET", "global/") == default_rules(ME)


@ensureDeferred
async def test_own_rules_are_ordered_and_appear_in_account_data() -> None:
    client = Client()
    await client("PUT", "override first", NOTIFY)
    await client("PUT", "override second", NOTIFY)
    await client("PUT", "override third", NOTIFY, after="second")
    await client("PUT", "override fourth", NOTIFY, before="first")
    assert await client.own("override") == ["second", "third", "fourth", "first"]
    await client("PUT", "override first", {"actions": []}, before="second")
    assert await client.own("override") == ["first", "second", "third", "fourth"]
    await client("PUT", "override second", {"actions": ["dont_notify"]})
    assert await client.own("override") == ["first", "second", "third", "fourth"]
    rules = (await client("GET", ""))["global"]["override"]
    assert rules[0]["rule_id"] == ".m.rule.master" and rules[2]["rule_id"] == "second"
    assert client.content() == await client("GET", "")
    assert {entry.kind for entry in client.entries} == {Kind.ACCOUNT_DATA}
    await client("DELETE", "override second")
    assert await client.own("override") == ["first", "third", "fourth"]
    # Another server process over the same log sees the same rules.
    assert PushRules(client.log).ruleset(ME) == (await client("GET", ""))["global"]


@ensureDeferred
async def test_switches_and_actions_of_own_and_predefined_rules() -> None:
    client = Client()
    await client("PUT", "content cake", {"pattern": "cake*lie", "actions": ["notify"]})
    for rule in "content cake", "underride .m.rule.message":
        assert await client("GET", rule + " enabled") == {"enabled": True}
        await client("PUT", rule + " enabled", {"enabled": False})
        await client("PUT", rule + " actions", {"actions": [{"set_tweak": "sound", "value": "x"}]})
        assert await client("GET", rule + " enabled") == {"enabled": False}
        assert await client("GET", rule + " actions") == {"actions": [{"set_tweak": "sound", "value": "x"}]}
    # A changed rule stays switched off; one switched on works.
    await client("PUT", "content cake", {"pattern": "pie", "actions": ["notify"]})
    assert await client("GET", "content cake") == {
        "rule_id": "cake", "default": False, "enabled": False, "actions": ["notify"], "pattern": "pie",
    }  # fmt: skip
    entries = len(client.entries)
    await client("PUT", "content cake enabled", {"enabled": False})
    assert len(client.entries) == entries


@ensureDeferred
async def test_historical_actions_come_back_and_mean_nothing() -> None:
    client = Client()
    for rule in "underride .m.rule.message", "override mine":
        await client("PUT", "override mine", {"actions": ["dont_notify", "coalesce"]})
        await client("PUT", rule + " actions", {"actions": ["dont_notify"]})
        assert await client("GET", rule + " actions") == {"actions": ["dont_notify"]}
    await client("PUT", "override mine actions", {"actions": ["coalesce", "notify"]})
    message = FlatEvent({"type": "m.room.message", "sender": "@a:here", "content": {"body": "hi"}}, lambda: 3, bool)
    with client.log.snapshot() as snapshot:
        assert evaluate(client.rules.compiled(snapshot, ME), message, Person(ME, lambda: None)).actions == ["notify"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/", 400),
        ("DELETE", "/global/", 400),
        ("PUT", "/global", 400),
        ("PUT", "/global/room", 400),
        ("PUT", "/global/room/", 400),
        ("PUT", "/device/room/%23x:here", 400),
        ("PUT", "/global/override/.m.rule.master/colour", 400),
        ("GET", "/global", 400),
        ("GET", "/device/", 400),
        ("GET", "/device/room/%23x:here/enabled", 400),
        ("GET", "", 404),
    ],
)
def test_a_path_that_names_no_rule(method: str, path: str, status: int) -> None:
    table = RouteTable(PushRulesApi(PushRules(MemoryLog(reactor))).routes())  # type: ignore[arg-type]
    with pytest.raises(MatrixError) as error:
        route, _ = table.find(method, "/_matrix/client/v3/pushrules" + path)
        route.handler(Call(method, path, {}, b""))
    assert (error.value.status, error.value.errcode) == (status, {400: "M_INVALID_PARAM", 404: "M_UNRECOGNIZED"}[status])


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "status", "errcode"),
    [
        ("GET", "override nothing", None, {}, 404, "M_NOT_FOUND"),
        ("GET", "nokind nothing", None, {}, 400, "M_INVALID_PARAM"),
        ("DELETE", "override nothing", None, {}, 404, "M_NOT_FOUND"),
        ("DELETE", "override .m.rule.master", None, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override .mine", NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override a/b", NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override a\\b", NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override " + "x" * 256, NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "nokind mine", NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", {}, {}, 400, "M_MISSING_PARAM"),
        ("PUT", "override mine", {"actions": "notify"}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", {"actions": ["explode"]}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", {"actions": [{"tweak": 1}]}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", NOTIFY | {"conditions": [5]}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", NOTIFY | {"conditions": {}}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "content mine", NOTIFY | {"pattern": "a", "conditions": "b"}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "content mine", NOTIFY, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "content mine", NOTIFY | {"pattern": "x" * 1025}, {}, 400, "M_INVALID_PARAM"),
        ("PUT", "override mine", NOTIFY, {"before": "absent"}, 400, "M_UNKNOWN"),
        ("PUT", "override mine", NOTIFY, {"after": ".m.rule.master"}, 400, "M_UNKNOWN"),
        ("PUT", "override .m.rule.master enabled", {"enabled": 1}, {}, 400, "M_BAD_JSON"),
        ("PUT", "override nothing enabled", {"enabled": True}, {}, 404, "M_NOT_FOUND"),
        ("PUT", "override .m.rule.master actions", {}, {}, 400, "M_MISSING_PARAM"),
    ],
)
@ensureDeferred
async def test_bad_requests(
    method: str, path: str, body: Any, query: dict[str, str], status: int, errcode: str
) -> None:
    client = Client()
    await refused(client(method, path, body, **query), status, errcode)
    with client.log.snapshot() as snapshot:
        assert datum(snapshot, ME, "", "m.push_rules") is None


@ensureDeferred
async def test_changed_rules_are_compiled_anew() -> None:
    client = Client()
    event = {"type": "m.room.message", "sender": "@a:here", "content": {"body": "hi", "m.mentions": {"user_ids": [ME]}}}

    def highlight() -> bool:
        with client.log.snapshot() as snapshot:
            rules = client.rules.compiled(snapshot, ME)
            assert client.rules.compiled(snapshot, ME) is rules
        flat = FlatEvent(event, lambda: 3, lambda key: True)
        return evaluate(rules, flat, Person(ME, lambda: None)).highlight

    assert highlight()
    await client("PUT", "override .m.rule.is_user_mention enabled", {"enabled": False})
    assert not highlight()
    await client("PUT", "override .m.rule.is_user_mention enabled", {"enabled": True})
    assert highlight()
