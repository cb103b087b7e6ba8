"""The auth rules once more, written down plainly: numbers of versions compared, every value read anew.

``state`` maps (type, state_key) to events; the answer is whether the event is allowed.
"""

import re

from nacl.signing import VerifyKey

from federation.rules.canonical_json import encode
from federation.rules.hashes import decode_base64

USER = re.compile(r"@[^:\0]*:(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?", re.S)


class Bad(Exception):
    """Rejected."""


def allowed(event, state):
    try:
        judge(event, state, int(event.version.id))
    except Bad:
        return False
    return True


def reject_if(condition):
    if condition:
        raise Bad


def domain(identifier):
    return identifier.split(":", 1)[1] if ":" in identifier else ""


def level(value, v):
    if isinstance(value, bool):
        raise Bad
    if isinstance(value, int):
        if abs(value) > 1.8e308:
            raise Bad
        return value
    if isinstance(value, str) and v <= 9 and re.fullmatch(r"\s*[+-]?[0-9]+\s*", value, re.A) and len(value) < 300:
        return int(value)
    if isinstance(value, float) and v <= 5 and value == value and abs(value) != float("inf"):
        return int(value)
    raise Bad


def lenient(value, default, v):
    try:
        return level(value, v)
    except Bad:
        return default


def creators(state):
    create = state["m.room.create", ""]
    return [create.sender, *create.content.get("additional_creators", [])]


def user_level(state, user, v):
    create = state["m.room.create", ""]
    if v >= 12 and user in creators(state):
        return float("inf")
    if ("m.room.power_levels", "") not in state:
        founder = create.sender if v >= 11 else create.content.get("creator")
        return 100 if user == founder and v < 12 else 0
    content = state["m.room.power_levels", ""].content
    users = content.get("users")
    default = lenient(content.get("users_default"), 0, v)
    return lenient(users.get(user), default, v) if isinstance(users, dict) else default


def needed(state, name, default, v):
    if ("m.room.power_levels", "") not in state:
        return default
    return lenient(state["m.room.power_levels", ""].content.get(name), default, v)


def event_level(state, event, v):
    if ("m.room.power_levels", "") not in state:
        return 0 if event.state_key is None else 50
    content = state["m.room.power_levels", ""].content
    if event.state_key is None:
        default = lenient(content.get("events_default"), 0, v)
    else:
        default = lenient(content.get("state_default"), 50, v)
    events = content.get("events")
    return lenient(events.get(event.type), default, v) if isinstance(events, dict) else default


def membership(state, user):
    event = state.get(("m.room.member", user))
    return event.content.get("membership") if event else None


def judge(event, state, v):
    content, sender = event.content, event.sender
    if event.type == "m.room.create":
        judge_create(event, v)
        return
    reject_if(("m.room.create", "") not in state)
    create = state["m.room.create", ""]
    reject_if(create.room_id != event.room_id)
    reject_if(create.content.get("m.federate") is False and domain(create.sender) != domain(sender))
    if event.type == "m.room.aliases" and v <= 5:
        reject_if(event.state_key is None)
        reject_if(event.state_key != domain(sender))
        return
    if event.type == "m.room.member":
        judge_member(event, state, v)
        return
    reject_if(membership(state, sender) != "join")
    mine = user_level(state, sender, v)
    if event.type == "m.room.third_party_invite":
        reject_if(mine < needed(state, "invite", 0, v))
        return
    reject_if(event_level(state, event, v) > mine)
    if event.state_key is not None and event.state_key[:1] == "@":
        reject_if(event.state_key != sender)
    if event.type == "m.room.power_levels":
        judge_power_levels(content, state, sender, mine, v)
    if event.type == "m.room.redaction" and v <= 2 and mine < needed(state, "redact", 50, v):
        target = event.pdu.get("redacts")
        reject_if(not isinstance(target, str) or domain(target) != domain(event.event_id))


def judge_create(event, v):
    reject_if(event.prev_event_ids)
    if v >= 12:
        reject_if("room_id" in event.pdu)
    else:
        reject_if(domain(event.room_id) != domain(event.sender))
    if "room_version" in event.content:
        known = [str(number) for number in range(1, 13)]
        reject_if(event.content["room_version"] not in known)
    if v <= 10:
        reject_if("creator" not in event.content)
    if v >= 12 and "additional_creators" in event.content:
        more = event.content["additional_creators"]
        reject_if(not isinstance(more, list))
        reject_if(not all(isinstance(user, str) and USER.fullmatch(user) for user in more))


def judge_member(event, state, v):
    content, sender, target = event.content, event.sender, event.state_key
    reject_if(target is None or not USER.fullmatch(target))
    create = state["m.room.create", ""]
    wanted, own, other = content.get("membership"), membership(state, sender), membership(state, target)
    mine, theirs = user_level(state, sender, v), user_level(state, target, v)
    rule = "invite"
    if ("m.room.join_rules", "") in state:
        rule = state["m.room.join_rules", ""].content.get("join_rule")
    if wanted == "join":
        founder = create.sender if v >= 11 else create.content.get("creator")
        if event.prev_event_ids == (create.event_id,) and target == founder:
            return
        reject_if(sender != target)
        reject_if(own == "ban")
        if rule == "public":
            return
        if rule == "invite" or (rule == "knock" and v >= 7):
            reject_if(own not in ("invite", "join"))
        elif (rule == "restricted" and v >= 8) or (rule == "knock_restricted" and v >= 10):
            if own not in ("invite", "join"):
                voucher = content.get("join_authorised_via_users_server")
                reject_if(not isinstance(voucher, str))
                reject_if(membership(state, voucher) != "join")
                reject_if(user_level(state, voucher, v) < needed(state, "invite", 0, v))
        else:
            raise Bad
    elif wanted == "invite":
        if "third_party_invite" in content:
            reject_if(other == "ban")
            judge_third_party(event, state)
            return
        reject_if(own != "join")
        reject_if(other in ("join", "ban"))
        reject_if(mine < needed(state, "invite", 0, v))
    elif wanted == "leave":
        if sender == target:
            reject_if(own not in (["invite", "join", "knock"] if v >= 7 else ["invite", "join"]))
            return
        reject_if(own != "join")
        reject_if(other == "ban" and mine < needed(state, "ban", 50, v))
        reject_if(mine < needed(state, "kick", 50, v))
        reject_if(theirs >= mine)
    elif wanted == "ban":
        reject_if(own != "join")
        reject_if(mine < needed(state, "ban", 50, v))
        reject_if(theirs >= mine)
    elif wanted == "knock" and v >= 7:
        reject_if(rule not in (["knock", "knock_restricted"] if v >= 10 else ["knock"]))
        reject_if(sender != target)
        reject_if(own in ("ban", "invite", "join"))
    else:
        raise Bad


def judge_third_party(event, state):
    signed = event.content["third_party_invite"]
    signed = signed.get("signed") if isinstance(signed, dict) else None
    reject_if(not isinstance(signed, dict) or "mxid" not in signed or "token" not in signed)
    reject_if(signed["mxid"] != event.state_key)
    invite = state.get(("m.room.third_party_invite", signed["token"]))
    reject_if(invite is None or invite.sender != event.sender)
    keys = [invite.content.get("public_key")] + [
        entry.get("public_key") for entry in invite.content.get("public_keys", [])
    ]
    bare = {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}
    for key in keys:
        for signatures in signed.get("signatures", {}).values():
            for signature in signatures.values():
                try:
                    VerifyKey(decode_base64(key)).verify(encode(bare), decode_base64(signature))
                except Exception:
                    continue
                return
    raise Bad


SINGLE = ["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"]


def judge_power_levels(content, state, sender, mine, v):
    old = state["m.room.power_levels", ""].content if ("m.room.power_levels", "") in state else None
    users = content.get("users", {})
    reject_if(not isinstance(users, dict))
    reject_if(not all(USER.fullmatch(user) for user in users))
    reject_if(v >= 12 and set(users) & set(creators(state)))
    changes = []
    for name in SINGLE:
        new = parse_new(content, name, v)
        before = None if old is None else lenient(old.get(name), None, v)
        changes.append((name, before, new, False))
    for group in ["events", "users"] + (["notifications"] if v >= 6 else []):
        new_group = content.get(group, {})
        if new_group is None and v <= 9 and group != "users":
            new_group = {}
        reject_if(not isinstance(new_group, dict))
        old_group = {} if old is None else old.get(group)
        old_group = old_group if isinstance(old_group, dict) else {}
        for name in set(new_group) | set(old_group):
            new = level(new_group[name], v) if group == "users" and name in new_group else None
            if group != "users":
                new = parse_new(new_group, name, v)
            changes.append((name, lenient(old_group.get(name), None, v), new, group == "users"))
    if old is None:
        return
    for name, before, after, is_user in changes:
        if before == after:
            continue
        reject_if(after is not None and after > mine)
        if before is not None and not (is_user and name == sender):
            reject_if(before > mine)
            reject_if(is_user and before == mine)


def parse_new(content, name, v):
    if name not in content or (content[name] is None and v <= 9):
        return None
    return level(content[name], v)
