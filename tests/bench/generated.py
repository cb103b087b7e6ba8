"""Rooms of any size, made in memory: signed events of users on servers that do not exist but for their keys."""

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

from federation.rules.auth_events import auth_types_for
from federation.rules.event import Event, build_event
from federation.rules.ids import server_name_of
from federation.rules.room_versions import room_version
from federation.rules.signing import SigningKey

_numbers = itertools.count(1)
VERSION = "10"


class GeneratedRoom:
    """A public room. ``state`` are its state events as canonical JSON, ``auth_chain`` those that others rest on."""

    def __init__(
        self,
        servers: list[str],
        key_of: Callable[[str], SigningKey],
        members: int,
        others: int = 0,
    ) -> None:
        """``members`` users spread over ``servers`` (the first makes the room), ``others``: more pieces of state."""
        self.version = room_version(VERSION)
        self.servers = servers
        self._key_of = key_of
        self.creator = self.user(0)
        self.state: dict[tuple[str, str], bytes] = {}
        self._ids: dict[tuple[str, str], str] = {}
        self._before: dict[str, tuple[list[str], list[bytes]]] = {}
        self.heads: list[str] = []
        self.depth = 0
        self.room_id = f"!generated{next(_numbers)}x{int(time.time() * 1000)}:{servers[0]}"
        levels = {"users": {self.creator: 100}, "users_default": 0, "state_default": 50, "events": {"m.room.topic": 0}}
        self._put("m.room.create", {"room_version": VERSION, "creator": self.creator})
        self._put("m.room.member", {"membership": "join"}, self.creator)
        self._put("m.room.power_levels", levels)
        self._put("m.room.join_rules", {"join_rule": "public"})
        self._put("m.room.history_visibility", {"history_visibility": "shared"})
        self.auth_chain = [data for (type_, _), data in self.state.items() if type_ != "m.room.history_visibility"]
        for number in range(1, members):
            content = {
                "membership": "join",
                "displayname": f"Member number {number}",
                "avatar_url": f"mxc://{servers[number % len(servers)]}/avatarOfMember{number:08}",
            }
            self._put("m.room.member", content, self.user(number), self.user(number))
        for number in range(others):
            self._put("org.example.fact", {"fact": f"something that is known, number {number}"}, f"fact{number}")

    def user(self, number: int) -> str:
        """The user of that number; 0 has made the room."""
        return f"@member{number}:{self.servers[number % len(self.servers)]}"

    def _put(self, type_: str, content: dict[str, Any], state_key: str = "", sender: str | None = None) -> Event:
        event = self.event(sender or self.creator, type_, content, state_key)
        self.follow(event)
        return event

    def event(
        self,
        sender: str,
        type_: str,
        content: dict[str, Any],
        state_key: str | None = None,
        after: list[str] | None = None,
    ) -> Event:
        """A signed event behind the room's heads or ``after`` others; the room does not move on by itself."""
        keys = auth_types_for(type_, state_key, sender, content, self.version)
        server = server_name_of(sender)
        return build_event(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=type_,
            content=content,
            state_key=state_key,
            depth=self.depth + 1,
            prev_event_ids=self.heads if after is None else after,
            auth_event_ids=[self._ids[key] for key in keys if key in self._ids],
            origin_server_ts=int(time.time() * 1000),
            server_name=server,
            signing_key=self._key_of(server),
        )

    def follow(self, event: Event) -> None:
        """The event is now the room's head, and part of its state if it is such."""
        self.heads, self.depth = [event.event_id], event.depth
        if event.state_key is not None:
            self.state[event.type, event.state_key] = event.json
            self._ids[event.type, event.state_key] = event.event_id

    # -- what a resident server answers

    def template(self, user_id: str) -> dict[str, Any]:
        """Of make_join."""
        content = {"membership": "join"}
        keys = auth_types_for("m.room.member", user_id, user_id, content, self.version)
        event = {
            "type": "m.room.member", "room_id": self.room_id, "sender": user_id, "state_key": user_id,
            "content": content, "depth": self.depth + 1, "prev_events": self.heads,
            "auth_events": [self._ids[key] for key in keys if key in self._ids],
            "origin": self.servers[0], "origin_server_ts": int(time.time() * 1000),
        }  # fmt: skip
        return {"room_version": self.version.id, "event": event}

    def send_join(self, pdu: dict[str, Any], omit_members: bool = False) -> list[bytes]:
        """The answer of send_join in pieces, whole state and all unless members are to be omitted; the join is the room's
        head from then on."""
        event = Event.from_pdu(pdu, self.version)
        self._before[event.event_id] = list(self._ids.values()), list(self.state.values())
        state = [data for (type_, _), data in self.state.items() if not omit_members or type_ != "m.room.member"]
        self.follow(event)
        told = json.dumps({"origin": self.servers[0], "members_omitted": omit_members, "servers_in_room": self.servers})
        pieces = [told.encode()[:-1], b',"event":', event.json]
        pieces += [b',"auth_chain":[', b",".join(self.auth_chain), b'],"state":[', *_in_pieces(state)]
        return [*pieces, b"]}"]

    def state_ids(self, event_id: str) -> dict[str, list[str]]:
        """The answer of state_ids, for an event that was sent with `send_join`."""
        chain = [Event.from_json(data, self.version).event_id for data in self.auth_chain]
        return {"pdu_ids": self._before[event_id][0], "auth_chain_ids": chain}

    def state_before(self, event_id: str) -> list[bytes]:
        """The answer of state for it, in pieces."""
        chain = b",".join(self.auth_chain)
        return [b'{"auth_chain":[', chain, b'],"pdus":[', *_in_pieces(self._before[event_id][1]), b"]}"]


def _in_pieces(events: list[bytes]) -> list[bytes]:
    return [(b"," if at else b"") + b",".join(events[at : at + 200]) for at in range(0, len(events), 200)]
