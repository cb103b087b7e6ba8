"""What ``folkmoot room explain`` finds out: of a room, of a user in it, of an event of it. Facts, as for JSON."""

from typing import Any

import orjson

from federation.rules.ids import server_name_of
from homeserver.admin.room_records import Change, RoomRecords
from storage.log import events as event_log
from storage.log.events import EventRecord
from storage.log.partial_joins import partial_join
from storage.log.removal import blocked_rooms, removal_of
from storage.log.rooms import membership_in, room_meta
from storage.log.view import Snapshot

MEMBER = "m.room.member"
OUTSIDE = "This server is not in the room."
Facts = dict[str, Any]


def explain(view: Snapshot, room_id: str, user_id: str | None = None, event_id: str | None = None) -> Facts:
    """All that is asked for. ``room`` is None where the log has no such room. Times in milliseconds."""
    removal = removal_of(view, room_id)
    meta = room_meta(view, room_id)
    room = None if meta is None else RoomRecords(view, meta)
    facts: Facts = {
        "room_id": room_id,
        "blocked": blocked_rooms(view).get(room_id),
        "being_deleted": None if removal is None else removal.phase,
        "room": None if room is None else _room(room),
    }
    if user_id is not None:
        facts["user"] = _outsider(view, room_id, user_id) if room is None else User(room, user_id).facts()
    if event_id is not None:
        facts["event"] = _event(room, view, room_id, event_id)
    return facts


# -- the room ----------------------------------------------------------------------------------------------------------


def _room(room: RoomRecords) -> Facts:
    meta, states = room.meta, room.states
    joined = set()
    size = 0
    for (type_, state_key), _ in states.items(meta.state_root):
        size += 1
        if type_ == MEMBER:
            member = membership_in(room.view, state_key, meta.room_id)
            if member is not None and member.membership == "join":
                joined.add(server_name_of(state_key))
    waiting = partial_join(room.view, meta.room_id)
    return {
        "version": meta.version,
        "joined": meta.joined,
        "invited": meta.invited,
        "servers": sorted(joined),
        "state_root": meta.state_root.hex(),
        "state_size": size,
        "forward_extremities": [{"event_id": event_id, "depth": depth} for event_id, depth in meta.extremities],
        "backward_extremities": meta.backward_extremities,
        "events": meta.last_seq,
        "history_before": 1 - meta.first_seq,
        "last_position": meta.last_position,
        "partial_state": None if waiting is None else {"joined_by": waiting.event_id, "servers": waiting.servers},
        "quarantined": meta.quarantined or None,
    }


# -- a user ------------------------------------------------------------------------------------------------------------


class User:
    """A user's way through a room."""

    def __init__(self, room: RoomRecords, user_id: str) -> None:
        self._room = room
        self._user_id = user_id
        self._changes = list(room.holders(MEMBER, user_id))
        self._member = membership_in(room.view, user_id, room.meta.room_id)

    def facts(self) -> Facts:
        """Membership, the event that decided it, every event about it, and the conclusion."""
        room, meta = self._room, self._room.meta
        member = self._member
        holder = room.states.get(meta.state_root, MEMBER, self._user_id)
        if not meta.state_root and member is not None:
            holder = member.event_id  # an invite or a knock, told by a server that is in the room
        record = None if holder is None else room.record(holder)
        history = [self._entry(found) for found in room.about(MEMBER, self._user_id)]
        facts: Facts = {
            "user_id": self._user_id,
            "membership": None if record is None else _membership(record),
            "decided_by": holder if record is None else _about(record),
            "forgotten": member is not None and member.forgotten,
            "history": history,
        }
        facts["conclusion"] = conclusion(facts, meta.partial_state)
        if not meta.last_seq:
            facts["conclusion"] += f" {OUTSIDE}"
        return facts

    def _entry(self, record: EventRecord) -> Facts:
        entry = {**_about(record), "membership": _membership(record), "verdict": "accepted", "why": "", "by": None}
        if record.rejected or record.soft_failed:
            entry["verdict"] = "rejected" if record.rejected else "soft-failed"
            entry["why"] = self._room.refusal(record)
            return entry
        held = [index for index, (_, _, holder) in enumerate(self._changes) if holder == record.event_id]
        if not held:
            return entry | self._never_held(record)
        if record.seq is None:
            entry["verdict"] = "told"
        if held[-1] + 1 < len(self._changes):
            entry |= self._ended(record, self._changes[held[-1] + 1])
        return entry

    def _never_held(self, record: EventRecord) -> Facts:
        if record.seq is None:
            shown = self._member is not None and self._member.event_id == record.event_id
            return {"verdict": "told" if shown else "cited"}
        if record.seq < 1:
            return {"verdict": "history"}
        winner = self._room.states.get(record.room_state, MEMBER, self._user_id)
        return self._lost(record, winner, record.room_state)

    def _ended(self, record: EventRecord, change: Change) -> Facts:
        came, _, holder = change
        if came is not None and came.event_id == holder:
            met = self._room.states.get(came.state_before, MEMBER, self._user_id)
            if met == record.event_id:  # else both stood on branches of their own
                return {"by": holder, "why": f"replaced by {holder}"}
        root = self._room.meta.state_root if came is None else came.room_state
        lost = self._lost(record, holder, root)
        when = "the room's state became complete" if came is None else f"{came.event_id} came"
        return {**lost, "why": f"{lost['why']} (when {when})"}

    def _lost(self, record: EventRecord, winner: str | None, root: bytes) -> Facts:
        against = self._room.forbidden(self._room.event(record), root)
        if against is None:
            against = "both are allowed, and the other one comes later in the order of state resolution"
        return {"verdict": "lost", "by": winner, "why": f"state resolution: {against}"}


def conclusion(user: Facts, partial: bool) -> str:
    """One sentence (two while a room is still arriving): what the user is, by which event, and what did not help."""
    name, decided = user["user_id"], user["decided_by"]
    if decided is None:
        said = f"{name} is not joined: no event here makes {name} a member."
    elif user["membership"] is None:
        said = f"{name} is not joined: {decided} decides it, which is not here or does not say."
    else:
        said = f"{name} {_is(user['membership'], decided, name)}, by {decided['event_id']}."
    refused = [entry for entry in user["history"] if entry["verdict"] in ("rejected", "soft-failed", "lost")]
    later = [entry for entry in refused if entry["membership"] != user["membership"]]
    if later:
        last = max(later, key=lambda entry: entry["origin_server_ts"])
        outcome = f"lost to {last['by']}" if last["verdict"] == "lost" else f"was {last['verdict']}"
        said = f"{said[:-1]}; the {last['membership']} {last['event_id']} {outcome}: {last['why']}."
    if partial:
        said += " Members of this room are still being fetched: what is missing here may be known to others."
    return said


def _is(membership: str, decided: Facts, user_id: str) -> str:
    sender = decided["sender"]
    own = sender == user_id
    return {
        "join": "is joined",
        "invite": f"is not joined but invited by {sender}",
        "knock": "is not joined but has knocked",
        "ban": f"is not joined: banned by {sender}",
        "leave": "is not joined: has left" if own else f"is not joined: removed by {sender}",
    }.get(membership, f"is not joined: the membership is {membership!r}, set by {sender}")


def _outsider(view: Snapshot, room_id: str, user_id: str) -> Facts:
    """A user of a room of which nothing is left here but, perhaps, that the user left it."""
    member = membership_in(view, user_id, room_id)
    facts: Facts = {"user_id": user_id, "membership": None, "decided_by": None, "forgotten": False, "history": []}
    if member is None:
        return {**facts, "conclusion": f"{user_id} is not joined: this server knows nothing of the room."}
    said = _is(member.membership, {"sender": member.sender}, user_id)
    return {
        **facts,
        "membership": member.membership,
        "decided_by": {"event_id": member.event_id, "sender": member.sender, "position": member.position},
        "forgotten": member.forgotten,
        "conclusion": f"{user_id} {said}, by {member.event_id}. {OUTSIDE}",
    }


# -- an event ----------------------------------------------------------------------------------------------------------


def _event(room: RoomRecords | None, view: Snapshot, room_id: str, event_id: str) -> Facts:
    found = event_log.event_by_id(view, event_id)
    facts: Facts = {"event_id": event_id, "here": found is not None and found.room_id == room_id}
    if found is None or room is None or not facts["here"]:
        return {**facts, "other_room": None if found is None or facts["here"] else found.room_id}
    event = room.event(found)
    refused = found.rejected or found.soft_failed
    return {
        **facts,
        **_about(found),
        "state_key": found.state_key,
        "flags": _flags(found),
        "redacted_by": found.redacted_by,
        "why": room.refusal(found) if refused else "",
        "auth_events": [_cited(view, id_) for id_ in event.auth_event_ids],
        "prev_events": [_cited(view, id_) for id_ in event.prev_event_ids],
        "state_change": _differences(room, found.state_before, found.state_after),
        "room_state_change": _differences(room, room.room_state_before(found), found.room_state) if _is_forward(found) else [],
        **_standing(room, found),
    }


def _is_forward(record: EventRecord) -> bool:
    return record.seq is not None and record.seq > 0


def _standing(room: RoomRecords, record: EventRecord) -> Facts:
    """Whether an event is in the room's current state, and who is there instead."""
    if record.state_key is None:
        return {"in_current_state": False, "instead": None}
    holder = room.states.get(room.meta.state_root, record.type, record.state_key)
    current = holder == record.event_id
    return {"in_current_state": current, "instead": None if current else holder}


def _flags(record: EventRecord) -> list[str]:
    states = {
        "rejected": record.rejected,
        "soft-failed": record.soft_failed,
        "outlier": record.seq is None,
        "redacted": record.redacted,
    }
    return [name for name, is_so in states.items() if is_so]


def _differences(room: RoomRecords, before: bytes, after: bytes) -> list[Facts]:
    if before == after:
        return []
    found = room.states.diff(before, after)
    return [{"type": key[0], "state_key": key[1], "before": old, "after": new} for key, old, new in found]


def _cited(view: Snapshot, event_id: str) -> Facts:
    record = event_log.event_by_id(view, event_id)
    if record is None:
        return {"event_id": event_id, "here": False, "type": None, "flags": []}
    return {"event_id": event_id, "here": True, "type": record.type, "flags": _flags(record)}


def _about(record: EventRecord) -> Facts:
    return {
        "event_id": record.event_id,
        "type": record.type,
        "sender": record.sender,
        "origin_server_ts": record.origin_server_ts,
        "position": record.position,
        "depth": record.depth,
    }


def _membership(record: EventRecord) -> str | None:
    found = orjson.loads(record.content_json).get("membership")
    return found if isinstance(found, str) else None
