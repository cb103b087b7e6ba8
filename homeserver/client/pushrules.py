"""Push rules: reading them, adding own ones, switching them on and off.

Until v1.9 of the specification these paths began with a parameter, the scope, of which `global` was the only value. A
path of that form that leads to no rule is therefore a request with a wrong parameter, which is told so with 400.
"""

from collections.abc import Callable
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.push import ruleset as rulesets
from homeserver.push.push_rules import PushRules
from homeserver.web.call import Call
from homeserver.web.routes import Route

_ROOT = "/_matrix/client/v3/pushrules/"
_RULE = _ROOT + "global/{kind}/{ruleId}"
_WRONG = {
    "": "The path names no rule: /pushrules/global/{kind}/{ruleId}",
    "global/": "The path names no kind of rule",
    "global/{kind}/": "The path names no rule",
    "{scope}": "The path ends in no slash and names no rule",
    "{scope}/": "There is no scope but `global`",
    "{scope}/{kind}": "The path ends in no slash and names no rule",
    "{scope}/{kind}/": "There is no scope but `global`",
    "{scope}/{kind}/{ruleId}": "There is no scope but `global`",
    "{scope}/{kind}/{ruleId}/{attribute}": "Rules have `enabled` and `actions` to read and set on their own",
}
"""What is wrong with a path below `_ROOT` that none of the operations has."""


def refusal(sentence: str) -> Callable[[Call], dict[str, Any]]:
    """A handler that refuses what has a wrong parameter in its path."""

    def refuse(call: Call) -> dict[str, Any]:
        raise MatrixError(400, "M_INVALID_PARAM", sentence)

    return refuse


class PushRulesApi:
    """The endpoints of `pushrules.yaml`."""

    def __init__(self, push_rules: PushRules) -> None:
        self._push_rules = push_rules

    def routes(self) -> list[Route]:
        """The routes of this module."""
        operations = [
            Route("GET", _ROOT, self.get_all),
            Route("GET", _ROOT + "global/", self.get_global),
            Route("GET", _ROOT + "global/{kind}/", self.get_kind),
            Route("GET", _RULE, self.get_rule),
            Route("PUT", _RULE, self.put_rule),
            Route("DELETE", _RULE, self.delete_rule),
            Route("GET", _RULE + "/enabled", self.get_enabled),
            Route("PUT", _RULE + "/enabled", self.put_enabled),
            Route("GET", _RULE + "/actions", self.get_actions),
            Route("PUT", _RULE + "/actions", self.put_actions),
        ]
        taken = {(route.method, route.path) for route in operations}
        wrong = [
            Route(method, _ROOT + path, refusal(sentence))
            for path, sentence in _WRONG.items()
            for method in ("GET", "PUT", "DELETE")
            if (method, _ROOT + path) not in taken
        ]
        return operations + wrong

    def get_all(self, call: Call) -> dict[str, Any]:
        """All rulesets; there is one."""
        return {"global": self._rules(call)}

    def get_global(self, call: Call) -> dict[str, Any]:
        """All rules by kind."""
        return dict(self._rules(call))

    def get_kind(self, call: Call) -> list[rulesets.Rule]:
        """The rules of one kind (of older versions of the specification; clients still ask)."""
        kind = call.params["kind"]
        if kind not in rulesets.KINDS:
            raise MatrixError(400, "M_INVALID_PARAM", f"There is no kind of push rule called {kind[:50]!r}")
        return list(self._rules(call)[kind])

    def get_rule(self, call: Call) -> dict[str, Any]:
        """One rule."""
        return self._find(call)

    async def put_rule(self, call: Call) -> dict[str, Any]:
        """Add or change a rule of the user's own."""
        kind, rule_id = call.params["kind"], call.params["ruleId"]
        body, before, after = call.json_object(), call.query("before"), call.query("after")
        await self._push_rules.change(
            call.requester.user_id, lambda rules: rulesets.put(rules, kind, rule_id, body, before, after)
        )
        return {}

    async def delete_rule(self, call: Call) -> dict[str, Any]:
        """Delete a rule of the user's own."""
        kind, rule_id = call.params["kind"], call.params["ruleId"]
        await self._push_rules.change(call.requester.user_id, lambda rules: rulesets.remove(rules, kind, rule_id))
        return {}

    def get_enabled(self, call: Call) -> dict[str, Any]:
        """Whether a rule is in force."""
        return {"enabled": self._find(call)["enabled"]}

    async def put_enabled(self, call: Call) -> dict[str, Any]:
        """Switch a rule on or off."""
        enabled = call.json_object().get("enabled")
        if type(enabled) is not bool:
            raise MatrixError(400, "M_BAD_JSON", "'enabled' has to be true or false")
        return await self._change(call, enabled=enabled)

    def get_actions(self, call: Call) -> dict[str, Any]:
        """What a rule does."""
        return {"actions": self._find(call)["actions"]}

    async def put_actions(self, call: Call) -> dict[str, Any]:
        """Change what a rule does."""
        body = call.json_object()
        if "actions" not in body:
            raise MatrixError(400, "M_MISSING_PARAM", "'actions' is missing")
        return await self._change(call, actions=rulesets.checked_actions(body["actions"]))

    def _rules(self, call: Call) -> rulesets.Ruleset:
        return self._push_rules.ruleset(call.requester.user_id)

    def _find(self, call: Call) -> rulesets.Rule:
        return rulesets.find(self._rules(call), call.params["kind"], call.params["ruleId"])

    async def _change(self, call: Call, **fields: Any) -> dict[str, Any]:
        kind, rule_id = call.params["kind"], call.params["ruleId"]
        await self._push_rules.change(
            call.requester.user_id, lambda rules: rulesets.change(rules, kind, rule_id, **fields)
        )
        return {}
