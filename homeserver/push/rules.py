"""Push rules: which of a user's rules an event meets, and what follows (Client-Server API, "Push Rules"). Pure.

An event is looked at once and then judged for many users. What depends on the event alone is decided at the first user
and remembered with the event; for each further user with the same rules only the conditions that speak of the user are
left.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from homeserver.push.default_rules import ME, default_rules
from homeserver.push.glob import Glob

KINDS = ("override", "content", "room", "sender", "underride")
"""In the order in which they are checked."""

HISTORICAL_ACTIONS = ("dont_notify", "coalesce")
"""Actions of older versions of the specification, without effect in this one."""

Path = tuple[str, ...]
_ABSENT: Any = object()


class FlatEvent:
    """One event with what was already found out about it.

    ``event`` has the fields of a client event (`type`, `sender`, `room_id`, `content`, `state_key`...).
    ``member_count`` gives the room's joined members; ``may_notify`` whether the sender's power reaches the
    notification level of a key such as ``room``. They are asked only when a rule wants to know.
    """

    __slots__ = ("_event", "_lower", "_may_notify", "_member_count", "_plans", "sender")

    def __init__(
        self, event: Mapping[str, Any], member_count: Callable[[], int], may_notify: Callable[[str], bool]
    ) -> None:
        self._event = event
        self._member_count: Callable[[], int] | int = member_count
        self._may_notify = may_notify
        self._lower: dict[Path, str | None] = {}
        self._plans: dict[int, tuple[CompiledRules, list[_Rule]]] = {}
        self.sender = event.get("sender")

    def value(self, path: Path) -> Any:
        """The property at ``path``; a private marker when it is absent."""
        value: Any = self._event
        for name in path:
            if type(value) is not dict or name not in value:
                return _ABSENT
            value = value[name]
        return value

    def lower(self, path: Path) -> str | None:
        """A text property in lower case; None when it is absent or no text."""
        try:
            return self._lower[path]
        except KeyError:
            value = self.value(path)
            text = self._lower[path] = value.lower() if type(value) is str else None
            return text

    def member_count(self) -> int:
        """How many have joined the room."""
        if not isinstance(self._member_count, int):
            self._member_count = self._member_count()
        return self._member_count

    def may_notify(self, key: str) -> bool:
        """Whether the sender may trigger notifications of this kind."""
        return self._may_notify(key)

    def plan(self, rules: "CompiledRules") -> "list[_Rule]":
        """The rules that this event can still meet, up to the first one that everybody meets."""
        known = self._plans.get(id(rules))
        if known is not None:
            return known[1]
        plan = []
        for rule in rules.rules:
            if all(condition(self) for condition in rule.shared):
                plan.append(rule)
                if not rule.personal:
                    break
        # Holding the rules keeps their id from being given to others.
        self._plans[id(rules)] = (rules, plan)
        return plan


class Person(NamedTuple):
    """For whom an event is judged; ``display_name`` (in the room, or None) is asked only when a rule wants it."""

    user_id: str
    display_name: Callable[[], str | None]


SharedCondition = Callable[[FlatEvent], bool]
PersonalCondition = Callable[[FlatEvent, Person], bool]


class Outcome(NamedTuple):
    """What a met rule asks for."""

    actions: list[Any]
    notify: bool
    highlight: bool


NOTHING = Outcome([], False, False)


class _Rule(NamedTuple):
    shared: tuple[SharedCondition, ...]
    personal: tuple[PersonalCondition, ...]
    outcome: Outcome


class CompiledRules:
    """A ruleset made ready: enabled rules with known conditions, in the order of checking."""

    __slots__ = ("rules",)

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self.rules = rules


def evaluate(rules: CompiledRules, event: FlatEvent, person: Person) -> Outcome:
    """What happens for ``person`` when ``event`` arrives. Own events never notify."""
    if event.sender == person.user_id:
        return NOTHING
    for rule in event.plan(rules):
        for condition in rule.personal:
            if not condition(event, person):
                break
        else:
            return rule.outcome
    return NOTHING


def unread_effect(actions: list[Any]) -> tuple[bool, bool]:
    """``(notify, highlight)`` of a rule's actions; unknown and historical actions have no effect."""
    notify = "notify" in actions
    highlight = False
    for action in actions:
        if type(action) is dict and action.get("set_tweak") == "highlight":
            highlight = action.get("value", True) is not False
    return notify, notify and highlight


@lru_cache(maxsize=1)
def compiled_default_rules() -> CompiledRules:
    """The predefined rules, one value for everybody who has not changed any."""
    return compile_rules(default_rules(ME))


def compile_rules(ruleset: Mapping[str, Any]) -> CompiledRules:
    """Make a `global` ruleset ready. Rules with unknown conditions can never match and are left out."""
    rules = []
    for kind in KINDS:
        for rule in ruleset.get(kind, ()):
            if rule.get("enabled", True) and (compiled := _compile_rule(kind, rule)) is not None:
                rules.append(compiled)
    return CompiledRules(tuple(rules))


def _compile_rule(kind: str, rule: Mapping[str, Any]) -> _Rule | None:
    actions = [action for action in rule["actions"] if action not in HISTORICAL_ACTIONS]
    outcome = Outcome(actions, *unread_effect(actions))
    shared: list[SharedCondition] = []
    personal: list[PersonalCondition] = []
    for condition in _conditions(kind, rule):
        if (made := _shared(condition)) is not None:
            shared.append(made)
        elif (own := _personal(condition)) is not None:
            personal.append(own)
        else:
            return None
    # What has to be looked up outside of the event comes last.
    shared.sort(key=lambda condition: isinstance(condition, _MemberCount | _MayNotify))
    return _Rule(tuple(shared), tuple(personal), outcome)


def _conditions(kind: str, rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The conditions of a rule; those of content, room and sender rules are implied by their kind."""
    if kind == "content":
        return [{"kind": "event_match", "key": "content.body", "pattern": rule.get("pattern")}]
    if kind == "room":
        return [{"kind": "event_property_is", "key": "room_id", "value": rule["rule_id"]}]
    if kind == "sender":
        return [{"kind": "event_property_is", "key": "sender", "value": rule["rule_id"]}]
    return rule.get("conditions") or []


def _shared(condition: Mapping[str, Any]) -> SharedCondition | None:
    """A condition on the event alone; None when it is about the user, or unknown."""
    kind, key = condition.get("kind"), condition.get("key")
    if kind == "room_member_count":
        return _MemberCount.parse(condition.get("is"))
    if type(key) is not str:
        return None
    if kind == "sender_notification_permission":
        return _MayNotify(key)
    path = property_path(key)
    if kind == "event_match":
        pattern = condition.get("pattern")
        return _EventMatch(path, pattern) if type(pattern) is str and pattern != ME else None
    value = condition.get("value", _ABSENT)
    if value == ME or not _is_simple(value):
        return None
    if kind == "event_property_is":
        return _PropertyIs(path, value)
    return _PropertyContains(path, value) if kind == "event_property_contains" else None


def _personal(condition: Mapping[str, Any]) -> PersonalCondition | None:
    kind, key = condition.get("kind"), condition.get("key")
    if kind == "contains_display_name":
        return _contains_display_name
    if type(key) is str and ME in (condition.get("pattern"), condition.get("value")):
        path = property_path(key)
        if kind == "event_property_contains":
            return lambda event, person: _contains(event.value(path), person.user_id)
        return lambda event, person: event.value(path) == person.user_id
    return None


class _EventMatch:
    """`event_match`: a pattern against a text, within words for `content.body`."""

    __slots__ = ("_glob", "_path", "_words")

    def __init__(self, path: Path, pattern: str) -> None:
        self._path = path
        self._glob = Glob(pattern)
        self._words = path == ("content", "body")

    def __call__(self, event: FlatEvent) -> bool:
        text = event.lower(self._path)
        if text is None:
            return False
        return self._glob.matches_words(text) if self._words else self._glob.matches(text)


class _PropertyIs:
    """`event_property_is`: the very value, of the very type."""

    __slots__ = ("_path", "_value")

    def __init__(self, path: Path, value: Any) -> None:
        self._path = path
        self._value = value

    def __call__(self, event: FlatEvent) -> bool:
        found = event.value(self._path)
        return type(found) is type(self._value) and found == self._value


class _PropertyContains:
    """`event_property_contains`: the very value is in the array."""

    __slots__ = ("_path", "_value")

    def __init__(self, path: Path, value: Any) -> None:
        self._path = path
        self._value = value

    def __call__(self, event: FlatEvent) -> bool:
        return _contains(event.value(self._path), self._value)


class _MayNotify:
    """`sender_notification_permission`."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, event: FlatEvent) -> bool:
        return event.may_notify(self._key)


class _MemberCount:
    """`room_member_count`."""

    __slots__ = ("_compare", "_count")

    def __init__(self, compare: str, count: int) -> None:
        self._compare = compare
        self._count = count

    @classmethod
    def parse(cls, text: Any) -> "_MemberCount | None":
        """``text`` is a decimal number after one of ``== < > >= <=`` or nothing."""
        if type(text) is not str:
            return None
        digits = text.lstrip("<>=")
        compare = text[: len(text) - len(digits)]
        if compare not in ("", "==", "<", ">", "<=", ">=") or not (digits.isascii() and digits.isdigit()):
            return None
        return cls(compare, int(digits)) if len(digits) < 16 else None

    def __call__(self, event: FlatEvent) -> bool:
        members = event.member_count()
        match self._compare:
            case "<":
                return members < self._count
            case ">":
                return members > self._count
            case "<=":
                return members <= self._count
            case ">=":
                return members >= self._count
        return members == self._count


def _contains_display_name(event: FlatEvent, person: Person) -> bool:
    text = event.lower(("content", "body"))
    name = person.display_name() if text is not None else None
    if text is None or not name:
        return False
    return Glob.literal(name).matches_words(text)


def _contains(values: Any, wanted: Any) -> bool:
    if type(values) is not list:
        return False
    return any(type(value) is type(wanted) and value == wanted for value in values)


def _is_simple(value: Any) -> bool:
    return value is None or type(value) in (str, int, bool)


@lru_cache(maxsize=4096)
def property_path(key: str) -> Path:
    """The names in a dot-separated property path (appendices), where a backslash before ``.`` or itself escapes it."""
    names, name, place = [], "", 0
    while place < len(key):
        char = key[place]
        if char == "\\" and key[place + 1 : place + 2] in (".", "\\"):
            name += key[place + 1]
            place += 2
            continue
        if char == ".":
            names.append(name)
            name = ""
        else:
            name += char
        place += 1
    return (*names, name)
