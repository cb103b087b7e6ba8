"""What ``folkmoot room explain`` prints. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.admin.peer_text import date

SHOWN = 20
"""Changes of state and servers that are printed; JSON has all."""

VERDICTS = {
    "accepted": "accepted",
    "rejected": "rejected",
    "soft-failed": "soft-failed",
    "lost": "accepted, then lost",
    "told": "taken over as another server told it",
    "cited": "known only because other events cite it",
    "history": "accepted, in history that was fetched later",
}

Facts = Mapping[str, Any]


def text(facts: Facts) -> str:
    """All of it, the conclusion about a user last."""
    lines = _room(facts)
    if "event" in facts:
        lines += ["", *_event(facts["event"])]
    if "user" in facts:
        lines += ["", *_user(facts["user"])]
    return "\n".join(lines)


def _room(facts: Facts) -> list[str]:
    room = facts["room"]
    lines = [f"{facts['room_id']}: " + ("not known to this server" if room is None else f"room version {room['version']}")]
    if facts["blocked"] is not None:
        lines.append(f"blocked: nobody of this server can enter it ({facts['blocked'] or 'no reason given'})")
    if facts["being_deleted"] is not None:
        lines.append(f"being deleted from this server: {facts['being_deleted']}")
    if room is None:
        return lines
    if not room["events"]:
        return [*lines, "this server is not in the room: it has heard of it in an invite or a knock"]
    lines.append(f"members: {room['joined']} joined, {room['invited']} invited")
    lines.append(f"servers with joined members: {len(room['servers'])}{_some(room['servers'])}")
    lines.append(f"current state: {room['state_size']} entries, root {room['state_root'] or '(empty)'}")
    lines.append(f"events: {room['events']} as they came, {room['history_before']} fetched from before")
    heads = [f"{head['event_id']} (depth {head['depth']})" for head in room["forward_extremities"]]
    lines.append(f"forward extremities: {len(heads)}{_some(heads)}")
    if room["backward_extremities"]:
        lines.append(f"events with predecessors that are not here: {len(room['backward_extremities'])}")
    if room["partial_state"] is not None:
        lines.append(
            f"the state is not complete: joined by {room['partial_state']['joined_by']}, the rest is still being fetched from"
            f" {', '.join(room['partial_state']['servers'][:3])}"
        )
    if room["quarantined"]:
        lines.append(f"damaged and not served: {room['quarantined']}")
    return lines


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f": {', '.join(names[:SHOWN])}{more}"


def _user(user: Facts) -> list[str]:
    lines = [f"what the log has of {user['user_id']}:"] if user["history"] else []
    for entry in user["history"]:
        lines += _entry(entry)
    if user["forgotten"]:
        lines.append(f"{user['user_id']} has forgotten the room")
    return [*lines, user["conclusion"]]


def _entry(entry: Facts) -> list[str]:
    where = f"position {entry['position']}" if entry["position"] else "no position"
    winner = f" to {entry['by']}" if entry["verdict"] == "lost" else ""
    return [
        f"  {date(entry['origin_server_ts'])}  {entry['membership']} by {entry['sender']}, {entry['event_id']}, {where}",
        f"    {VERDICTS[entry['verdict']]}{winner}{_why(entry)}",
    ]


def _why(entry: Facts) -> str:
    return f": {entry['why']}" if entry["why"] else ""


def _event(event: Facts) -> list[str]:
    if not event["here"]:
        other = event["other_room"]
        return [f"{event['event_id']}: not here" if other is None else f"{event['event_id']}: of another room, {other}"]
    key = "" if event["state_key"] is None else f", state key {event['state_key']!r}"
    where = f"position {event['position']}" if event["position"] else "no place in the room's order"
    lines = [
        f"{event['event_id']}: {event['type']}{key}",
        f"  by {event['sender']}, {date(event['origin_server_ts'])}, depth {event['depth']}, {where}",
        f"  {', '.join(event['flags']) or 'accepted'}{_why(event)}",
    ]
    if event["redacted_by"]:
        lines.append(f"  redacted by {event['redacted_by']}")
    for name in ("auth_events", "prev_events"):
        lines.append(f"  {name}:" + ("" if event[name] else " none"))
        lines += [f"    {_cited(cited)}" for cited in event[name]]
    lines += _changes("state after it, compared with the state before it", event["state_change"])
    lines += _changes("the room's state, compared with what it was when the event came", event["room_state_change"])
    if event["state_key"] is not None:
        instead = f"no, but {event['instead']}" if event["instead"] else "no, and nothing is there instead"
        lines.append(f"  in the current state: {'yes' if event['in_current_state'] else instead}")
    return lines


def _cited(cited: Facts) -> str:
    if not cited["here"]:
        return f"{cited['event_id']}: missing"
    return f"{cited['event_id']}: {', '.join([cited['type'], *cited['flags']])}"


def _changes(title: str, changes: Sequence[Facts]) -> list[str]:
    if not changes:
        return [f"  {title}: no difference"]
    lines = [f"  {title}:"]
    for change in changes[:SHOWN]:
        before, after = change["before"] or "nothing", change["after"] or "nothing"
        lines.append(f"    {change['type']} {change['state_key']!r}: {before} -> {after}")
    return lines + ([f"    and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else [])
