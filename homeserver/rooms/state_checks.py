"""What a client may put into state events that the server understands, checked before the auth rules are asked.

The auth rules of old room versions let more through than the specification's schemas (levels as text, for instance),
since history has it; new events of ours follow the schemas. Client-Server API, "Room Events".
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_id, is_valid_user_id
from federation.rules.power_levels import LEVEL_KEYS

MAX_LEVEL = 2**53 - 1


def check_state_content(type_: str, state_key: str, content: Mapping[str, Any], room_id: str) -> None:
    """Refuse content that readers of this type could not use. Raises MatrixError 400."""
    if state_key == "":
        check = _CHECKS.get(type_)
        if check is not None:
            check(content, room_id)


def check_power_levels(content: Mapping[str, Any]) -> None:
    """Every level is an integer, every map an object, every user a user id. MatrixError 400 M_BAD_JSON."""
    for key in LEVEL_KEYS:
        if key in content:
            _check_level(key, content[key])
    for name in ("events", "users", "notifications"):
        levels = content.get(name, {})
        if not isinstance(levels, dict):
            raise MatrixError(400, "M_BAD_JSON", f"{name} of the power levels is an object")
        for key, level in levels.items():
            _check_level(key, level)
            if name == "users" and not is_valid_user_id(key):
                raise MatrixError(400, "M_BAD_JSON", f"Not a user id: {key}")


def _check_level(key: str, level: object) -> None:
    if type(level) is not int or abs(level) > MAX_LEVEL:
        raise MatrixError(400, "M_BAD_JSON", f"The power level of {key} is an integer")


def _power_levels(content: Mapping[str, Any], room_id: str) -> None:
    check_power_levels(content)


def _tombstone(content: Mapping[str, Any], room_id: str) -> None:
    replacement = content.get("replacement_room")
    if replacement is not None and not is_valid_room_id(replacement):
        raise MatrixError(400, "M_INVALID_PARAM", "replacement_room is a room id")
    if replacement == room_id:
        raise MatrixError(400, "M_INVALID_PARAM", "A room cannot be replaced by itself")


def _text(key: str) -> Any:
    def check(content: Mapping[str, Any], room_id: str) -> None:
        if not isinstance(content.get(key), str):
            raise MatrixError(400, "M_BAD_JSON", f"{key} is a string")

    return check


_CHECKS: Mapping[str, Any] = {
    "m.room.power_levels": _power_levels,
    "m.room.tombstone": _tombstone,
    "m.room.join_rules": _text("join_rule"),
    "m.room.history_visibility": _text("history_visibility"),
    "m.room.guest_access": _text("guest_access"),
}
