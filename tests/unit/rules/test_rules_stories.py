"""The stories in ``tests/vectors``: a room told event by event, then what is allowed in it or how it resolves.

An event stands on the resolved state after its ``prev``; ``refused`` ones have to be refused. ``resolve`` names
events whose states meet (``state_sets`` spells states out), ``expect`` some entries of the outcome (null: none).
In rooms whose creators have no level, entries of the creator are left out of the power levels.
"""

import json
from pathlib import Path

import pytest

from federation.rules.auth import AuthError, auth_types_for, check_auth, check_auth_event_list
from federation.rules.event import build_event
from federation.rules.room_versions import ROOM_VERSIONS
from federation.rules.signing import SigningKey
from federation.rules.state_resolution import resolve

STORIES = {path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parents[2].glob("vectors/*.json"))}
KEY = SigningKey.from_seed(b"k" * 32)
CASES = [(name, version) for name, story in STORIES.items() for version in story["versions"]]


class Room:
    def __init__(self, version):
        self.version = version
        self.by_name, self.by_id, self.after = {}, {}, {}

    def tell(self, line, number):
        version = self.version
        prev = [self.by_name[name] for name in line["prev"]]
        sets = [self.after[event.event_id] for event in prev]
        state = resolve(version, sets, self.by_id.get) if sets else {}
        content = dict(line["content"])
        create = self.by_name.get("create")
        if line["type"] == "m.room.create":
            content.update(creator=line["sender"], room_version=version.id)
        if line["type"] == "m.room.power_levels" and version.privileged_creators:
            content["users"] = {user: level for user, level in content["users"].items() if user != create.sender}
        wanted = auth_types_for(line["type"], line.get("state_key"), line["sender"], content, version)
        cited = [self.by_id[state[key]] for key in wanted if key in state]
        event = build_event(
            version,
            room_id=create.room_id if create else None if version.room_id_is_create_hash else "!r:a",
            sender=line["sender"],
            type=line["type"],
            state_key=line.get("state_key"),
            content=content,
            depth=1 + max((event.depth for event in prev), default=0),
            prev_event_ids=[event.reference() for event in prev],
            auth_event_ids=[event.reference() for event in cited],
            origin_server_ts=line.get("ts", number),
            server_name=line["sender"].split(":")[1],
            signing_key=KEY,
            event_id=f"${line['name']}:a",
        )
        check_auth_event_list(event, cited)
        check_auth(event, {key: self.by_id[id_] for key, id_ in state.items()})
        self.by_name[line["name"]] = self.by_id[event.event_id] = event
        self.after[event.event_id] = {**state, event.key: event.event_id}


@pytest.mark.parametrize(("name", "version"), CASES)
def test_story(name, version):
    story = STORIES[name]
    room = Room(ROOM_VERSIONS[version])
    for number, line in enumerate(story["events"]):
        if line.get("refused"):
            with pytest.raises(AuthError):
                room.tell(line, number)
        else:
            room.tell(line, number)
    if "expect" not in story:
        return
    if "state_sets" in story:
        events = [[room.by_name[member] for member in members] for members in story["state_sets"]]
        sets = [{event.key: event.event_id for event in members} for members in events]
    else:
        sets = [room.after[room.by_name[tip].event_id] for (tip,) in story["resolve"]]
    for states in (sets, sets[::-1]):
        outcome = resolve(room.version, states, room.by_id.get)
        for key, expected in story["expect"].items():
            found = outcome.get(tuple(key.split("|", 1)))
            assert found == (expected and room.by_name[expected].event_id), key
