"""Rooms that grow at random, with forks: each event stands on a state that resolution gave, as far as it may."""

import random

from federation.rules.auth import AuthError, auth_types_for, check_auth
from federation.rules.event import build_event
from federation.rules.room_versions import RoomVersion
from federation.rules.signing import SigningKey
from federation.rules.state_resolution import resolve

KEY = SigningKey.from_seed(b"k" * 32)
USERS = ["@alice:a", "@bob:b", "@carol:c", "@dave:d", "@eve:e"]
LEVELS = [0, 0, 1, 49, 50, 50, 99, 100, 100, 101, -1]


class RoomGraph:
    """Events by id, and the state after each."""

    def __init__(self, version: RoomVersion, seed: int) -> None:
        self.version = version
        self.random = random.Random(seed)
        self.events = {}
        self.after = {}
        self.heads = []
        self.room_id = None if version.room_id_is_create_hash else "!room:a"
        content = {"creator": USERS[0], "room_version": version.id}
        if version.privileged_creators and self.random.random() < 0.3:
            content["additional_creators"] = [USERS[1]]
        self.privileged = [USERS[0], *content.get("additional_creators", [])] if version.privileged_creators else []
        create = self.make("m.room.create", "", USERS[0], content, [], {})
        self.room_id = create.room_id
        self.add(create, {})
        for type_, key, body in (
            ("m.room.member", USERS[0], {"membership": "join"}),
            ("m.room.power_levels", "", {"users": {} if self.privileged else {USERS[0]: 100}}),
            ("m.room.join_rules", "", {"join_rule": "public"}),
        ):
            prev = list(self.events)[-1:]
            state = self.after[prev[0]]
            self.add(self.make(type_, key, USERS[0], body, prev, state), state)

    def fetch(self, event_id):
        return self.events.get(event_id)

    def state_of(self, state):
        return {key: self.events[event_id] for key, event_id in state.items()}

    def make(self, type_, state_key, sender, content, prev, state):
        number = len(self.events)
        wanted = auth_types_for(type_, state_key, sender, content, self.version)
        return build_event(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=type_,
            state_key=state_key,
            content=content,
            depth=1 + max((self.events[id_].depth for id_ in prev), default=0),
            prev_event_ids=[self.events[id_].reference() for id_ in prev],
            auth_event_ids=[self.events[state[key]].reference() for key in wanted if key in state],
            origin_server_ts=1000 + number // 3 * self.random.choice([1, 1, 0]),
            server_name=sender.split(":")[1],
            signing_key=KEY,
            event_id=f"${self.random.random()}:{sender.split(':')[1]}",
        )

    def add(self, event, state):
        after = {**state, event.key: event.event_id} if event.is_state else state
        self.events[event.event_id] = event
        self.after[event.event_id] = after
        self.heads = [id_ for id_ in self.heads if id_ not in event.prev_event_ids] + [event.event_id]

    def propose(self):
        """A random event on random predecessors, which the rules may or may not allow, and the state before it."""
        pick = self.random
        recent = list(self.events)[-8:]
        prev = pick.sample(recent, min(len(recent), pick.choice([1, 1, 1, 2])))
        if pick.random() < 0.25:
            prev = self.heads[-4:]
        state = resolve(self.version, [self.after[id_] for id_ in prev], self.fetch)
        sender, target = pick.choice(USERS), pick.choice(USERS)
        if pick.random() < 0.6:
            sender = USERS[0] if pick.random() < 0.4 else sender
            joined = [u for u in USERS if (m := self.state_of(state).get(("m.room.member", u))) is not None
                      and m.content["membership"] == "join"]  # fmt: skip
            sender = pick.choice(joined or USERS)
        return self.make(*self.shape(sender, target, state), prev, state), state

    def shape(self, sender, target, state):
        pick = self.random
        kind = pick.choice(
            ["join", "join", "join", "member", "member", "levels", "levels", "rules", "topic", "message"]
        )
        if kind == "join":
            content = {"membership": "join"}
            if pick.random() < 0.3:
                content["join_authorised_via_users_server"] = target
            return "m.room.member", sender, sender, content
        if kind == "member":
            return "m.room.member", target, sender, {"membership": pick.choice(["invite", "leave", "ban", "knock"])}
        if kind == "levels":
            return "m.room.power_levels", "", sender, self.levels(state)
        if kind == "rules":
            rule = pick.choice(["public", "public", "invite", "knock", "restricted", "knock_restricted", "private"])
            return "m.room.join_rules", "", sender, {"join_rule": rule}
        if kind == "topic":
            return "m.room.topic", pick.choice(["", "", sender, target]), sender, {"topic": str(pick.random())}
        return "m.room.message", None, sender, {"body": "hello"}

    def levels(self, state):
        pick = self.random
        current = self.state_of(state).get(("m.room.power_levels", ""))
        content = dict(current.content) if current else {}
        users = dict(content.get("users", {}))
        for user in pick.sample(USERS, pick.choice([1, 1, 2])):
            if user not in self.privileged or pick.random() < 0.05:
                users[user] = pick.choice(LEVELS)
        content["users"] = users
        if pick.random() < 0.3:
            content[pick.choice(["ban", "kick", "invite", "state_default", "users_default"])] = pick.choice(LEVELS)
        if pick.random() < 0.3:
            content["events"] = {**content.get("events", {}), "m.room.topic": pick.choice(LEVELS)}
        if pick.random() < 0.3:
            content["notifications"] = {"room": pick.choice(LEVELS)}
        return content

    def grow(self, count):
        """Propose events until ``count`` were allowed (bounded); yields each proposal with its verdict."""
        for _ in range(count * 6):
            event, state = self.propose()
            try:
                check_auth(event, self.state_of(state))
            except AuthError:
                yield event, state, False
                continue
            self.add(event, state)
            yield event, state, True
            count -= 1
            if not count:
                return
