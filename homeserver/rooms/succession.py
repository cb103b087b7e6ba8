"""What a user keeps about a room and finds again in its successor: tags, the mark of a direct chat, push rules.

Client-Server API, "Room Upgrades", server behaviour. All of it is account data, so that it moves in the batch of the
join and no client sees the one without the other.
"""

from typing import Any

import orjson

from storage.log import account_data
from storage.log.append import Batch

TAGS = "m.tag"
DIRECT = "m.direct"
PUSH_RULES = "m.push_rules"


def carry_over(batch: Batch, user_id: str, old_room: str, new_room: str) -> None:
    """Copy the user's marks of the old room to the new one; what the new room has already stays."""
    tags = account_data.datum(batch, user_id, old_room, TAGS)
    if tags is not None and account_data.datum(batch, user_id, new_room, TAGS) is None:
        account_data.put_datum(batch, user_id, new_room, TAGS, tags.content)
    for type_, change in ((DIRECT, _direct), (PUSH_RULES, _push_rules)):
        stored = account_data.datum(batch, user_id, "", type_)
        if stored is None:
            continue
        content = orjson.loads(stored.content)
        if change(content, old_room, new_room):
            account_data.put_datum(batch, user_id, "", type_, orjson.dumps(content))


def _direct(content: Any, old_room: str, new_room: str) -> bool:
    changed = False
    for rooms in content.values() if isinstance(content, dict) else ():
        if isinstance(rooms, list) and old_room in rooms and new_room not in rooms:
            rooms.append(new_room)
            changed = True
    return changed


def _push_rules(content: Any, old_room: str, new_room: str) -> bool:
    rules = content.get("global") if isinstance(content, dict) else None
    if not isinstance(rules, dict):
        return False
    changed = False
    for kind in ("override", "room"):
        listed = rules.get(kind)
        if not isinstance(listed, list):
            continue
        names = {rule.get("rule_id") for rule in listed if isinstance(rule, dict)}
        copies = [copy for rule in listed if (copy := _copy(rule, old_room, new_room)) is not None]
        fresh = [copy for copy in copies if copy["rule_id"] not in names]
        listed[:0] = fresh
        changed = changed or bool(fresh)
    return changed


def _copy(rule: Any, old_room: str, new_room: str) -> dict[str, Any] | None:
    """The rule for the new room; None for a rule that is not about the old one."""
    if not isinstance(rule, dict) or rule.get("default"):
        return None
    conditions = rule.get("conditions")
    conditions = conditions if isinstance(conditions, list) else []
    about = {"kind": "event_match", "key": "room_id", "pattern": old_room}
    if rule.get("rule_id") != old_room and about not in conditions:
        return None
    copy = {**rule, "rule_id": str(rule.get("rule_id")).replace(old_room, new_room)}
    if copy["rule_id"] == rule.get("rule_id"):
        copy["rule_id"] = f"{copy['rule_id']}:{new_room}"
    if conditions:
        copy["conditions"] = [{**about, "pattern": new_room} if item == about else item for item in conditions]
    return copy
