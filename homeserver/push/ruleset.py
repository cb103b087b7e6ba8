"""Reading and changing a user's push rules (Client-Server API, "Push Rules: API"). Pure.

A ruleset is the `global` object: rules by kind, the user's own before the predefined ones, except that `.m.rule.master`
comes first. Functions take one and return a new one.
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.push.default_rules import default_rules
from homeserver.push.rules import HISTORICAL_ACTIONS, KINDS

MASTER = ".m.rule.master"
MAX_RULES = 1000
MAX_RULE_ID = 255
MAX_PATTERN = 1024
MAX_CONDITIONS = 100
MAX_ACTIONS = 50

Rule = dict[str, Any]
Ruleset = dict[str, list[Rule]]


def merged(stored: Mapping[str, Any] | None, user_id: str) -> Ruleset:
    """What a user has: the own rules of ``stored`` and today's predefined rules with the user's changes to them.

    ``stored`` is the `global` part of `m.push_rules` as it was kept, by whatever version of the server.
    """
    defaults = default_rules(user_id)
    if stored is None:
        return defaults
    result: Ruleset = {}
    for kind in KINDS:
        kept = stored.get(kind, [])
        changed = {rule["rule_id"]: rule for rule in kept if rule.get("default")}
        own = [rule for rule in kept if not rule.get("default")]
        predefined = [
            rule | {name: changed[rule["rule_id"]][name] for name in ("enabled", "actions")}
            if rule["rule_id"] in changed
            else rule
            for rule in defaults[kind]
        ]
        first = 1 if predefined and predefined[0]["rule_id"] == MASTER else 0
        result[kind] = predefined[:first] + own + predefined[first:]
    return result


def find(ruleset: Ruleset, kind: str, rule_id: str) -> Rule:
    """One rule. Raises MatrixError 404 M_NOT_FOUND, 400 M_INVALID_PARAM for a kind that does not exist."""
    if kind not in KINDS:
        raise MatrixError(400, "M_INVALID_PARAM", f"There is no kind of push rule called {kind[:50]!r}")
    for rule in ruleset[kind]:
        if rule["rule_id"] == rule_id:
            return rule
    raise MatrixError(404, "M_NOT_FOUND", "The push rule was not found.")


def change(ruleset: Ruleset, kind: str, rule_id: str, **fields: Any) -> Ruleset:
    """Set `enabled` or `actions` of a rule, predefined ones too. Raises like :func:`find`."""
    old = find(ruleset, kind, rule_id)
    return ruleset | {kind: [rule | fields if rule is old else rule for rule in ruleset[kind]]}


def remove(ruleset: Ruleset, kind: str, rule_id: str) -> Ruleset:
    """Without a rule of the user's own. Raises like :func:`find`; 400 for a predefined rule."""
    old = find(ruleset, kind, rule_id)
    if old["default"]:
        raise MatrixError(400, "M_INVALID_PARAM", "A predefined rule cannot be deleted; disable it")
    return ruleset | {kind: [rule for rule in ruleset[kind] if rule is not old]}


def put(
    ruleset: Ruleset, kind: str, rule_id: str, body: Mapping[str, Any], before: str | None, after: str | None
) -> Ruleset:
    """Add a rule of the user's own or change it, optionally next to another one of them.

    Raises MatrixError 400 for a bad rule, and when the neighbour is not there or predefined.
    """
    rule = _checked(kind, rule_id, body)
    rules = ruleset[kind]
    at = next((i for i, other in enumerate(rules) if other["rule_id"] == rule_id), None)
    if at is not None:
        rule["enabled"] = rules[at]["enabled"]
    elif sum(map(len, ruleset.values())) >= MAX_RULES:
        raise MatrixError(400, "M_INVALID_PARAM", f"At most {MAX_RULES} push rules")
    others = [other for other in rules if other["rule_id"] != rule_id]
    neighbour = before if before is not None else after
    if neighbour is not None:
        place = _place(others, neighbour) + (0 if before is not None else 1)
    elif at is not None:
        place = at
    else:
        place = 1 if others and others[0]["rule_id"] == MASTER else 0
    return ruleset | {kind: others[:place] + [rule] + others[place:]}


def checked_actions(actions: Any) -> list[Any]:
    """The actions of a request. Raises MatrixError 400 for undefined forms.

    `dont_notify` and `coalesce` of older versions are kept for the clients that still set and show them; where rules
    are applied they mean nothing ("Historical Actions").
    """
    if type(actions) is not list or len(actions) > MAX_ACTIONS:
        raise MatrixError(400, "M_INVALID_PARAM", "'actions' has to be a list of actions")
    for action in actions:
        if action == "notify" or action in HISTORICAL_ACTIONS:
            continue
        if type(action) is not dict or type(action.get("set_tweak")) is not str:
            raise MatrixError(400, "M_INVALID_PARAM", "Unrecognised action")
    return actions


def _place(rules: list[Rule], rule_id: str) -> int:
    for i, rule in enumerate(rules):
        if rule["rule_id"] == rule_id and not rule["default"]:
            return i
    raise MatrixError(400, "M_UNKNOWN", f"before/after rule not found: {rule_id[:MAX_RULE_ID]}")


def _checked(kind: str, rule_id: str, body: Mapping[str, Any]) -> Rule:
    if kind not in KINDS:
        raise MatrixError(400, "M_INVALID_PARAM", f"There is no kind of push rule called {kind[:50]!r}")
    if rule_id.startswith(".") or not rule_id or len(rule_id) > MAX_RULE_ID or "/" in rule_id or "\\" in rule_id:
        raise MatrixError(400, "M_INVALID_PARAM", "This rule ID is not allowed")
    if "actions" not in body:
        raise MatrixError(400, "M_MISSING_PARAM", "'actions' is missing")
    rule: Rule = {"rule_id": rule_id, "default": False, "enabled": True, "actions": checked_actions(body["actions"])}
    if kind == "content":
        pattern = body.get("pattern")
        if type(pattern) is not str or len(pattern) > MAX_PATTERN:
            raise MatrixError(400, "M_INVALID_PARAM", "A content rule needs a pattern of reasonable length")
        rule["pattern"] = pattern
    # Other kinds have no conditions to keep, but a malformed list is a malformed request all the same.
    conditions = _checked_conditions(body.get("conditions", []))
    if kind in ("override", "underride"):
        rule["conditions"] = conditions
    return rule


def _checked_conditions(conditions: Any) -> list[Any]:
    if type(conditions) is not list or len(conditions) > MAX_CONDITIONS:
        raise MatrixError(400, "M_INVALID_PARAM", "'conditions' has to be a list of conditions")
    for condition in conditions:
        if type(condition) is not dict or type(condition.get("kind")) is not str:
            raise MatrixError(400, "M_INVALID_PARAM", "A condition has to be an object with a 'kind'")
        pattern = condition.get("pattern")
        if type(pattern) is str and len(pattern) > MAX_PATTERN:
            raise MatrixError(400, "M_INVALID_PARAM", "The pattern is too long")
    return conditions
