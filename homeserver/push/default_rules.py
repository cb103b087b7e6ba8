"""The predefined push rules (Client-Server API, "Predefined Rules"), most important first within each kind."""

from typing import Any, Final

ME: Final = "[the user's Matrix ID]"
"""Stands for the user in the conditions below; filled in for whoever reads or uses the rules."""


def _match(key: str, pattern: str) -> dict[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _sound(name: str) -> dict[str, Any]:
    return {"set_tweak": "sound", "value": name}


_HIGHLIGHT: Final = {"set_tweak": "highlight"}
_TWO: Final = {"kind": "room_member_count", "is": "2"}

_OVERRIDE: Final[tuple[tuple[str, list[Any], list[Any]], ...]] = (
    (".m.rule.master", [], []),
    (".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
    (
        ".m.rule.invite_for_me",
        [_match("type", "m.room.member"), _match("content.membership", "invite"), _match("state_key", ME)],
        ["notify", _sound("default")],
    ),
    (".m.rule.member_event", [_match("type", "m.room.member")], []),
    (
        ".m.rule.is_user_mention",
        [{"kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value": ME}],
        ["notify", _sound("default"), _HIGHLIGHT],
    ),
    (
        ".m.rule.is_room_mention",
        [
            {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ],
        ["notify", _HIGHLIGHT],
    ),
    (
        ".m.rule.tombstone",
        [_match("type", "m.room.tombstone"), _match("state_key", "")],
        ["notify", _HIGHLIGHT],
    ),
    (".m.rule.reaction", [_match("type", "m.reaction")], []),
    (".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")], []),
    (
        ".m.rule.suppress_edits",
        [{"kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace"}],
        [],
    ),
)

_UNDERRIDE: Final[tuple[tuple[str, list[Any], list[Any]], ...]] = (
    (".m.rule.call", [_match("type", "m.call.invite")], ["notify", _sound("ring")]),
    (".m.rule.encrypted_room_one_to_one", [_TWO, _match("type", "m.room.encrypted")], ["notify", _sound("default")]),
    (".m.rule.room_one_to_one", [_TWO, _match("type", "m.room.message")], ["notify", _sound("default")]),
    (".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
    (".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
)


def default_rules(user_id: str) -> dict[str, list[dict[str, Any]]]:
    """The rules that an account begins with, by kind; a fresh value that the caller may change."""
    return {
        "override": [_rule(user_id, *row) for row in _OVERRIDE],
        "content": [],
        "room": [],
        "sender": [],
        "underride": [_rule(user_id, *row) for row in _UNDERRIDE],
    }


def _rule(user_id: str, rule_id: str, conditions: list[Any], actions: list[Any]) -> dict[str, Any]:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": rule_id != ".m.rule.master",
        "conditions": [
            {name: user_id if value == ME else value for name, value in condition.items()}
            for condition in conditions
        ],
        "actions": [dict(action) if type(action) is dict else action for action in actions],
    }
