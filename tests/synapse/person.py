"""A person with a plain Matrix client, on whichever server."""

import itertools
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.contract.caller import Caller, Reply
from tests.e2e.devices import PASSWORD

PATIENCE = 20.0
"""Seconds until something that another server was told counts as never told."""


class Refused(AssertionError):
    """The server answered with an error."""

    def __init__(self, what: str, reply: Reply) -> None:
        super().__init__(f"{what}: {reply.status} {reply.body}")
        self.reply = reply


class Person:
    """Has an account and a token; remembers what `sync` brought."""

    def __init__(self, caller: Caller, name: str) -> None:
        self._caller, self.name = caller, name
        self._numbers = itertools.count(1)
        self._since: str | None = None
        self.timeline: dict[str, list[dict[str, Any]]] = {}
        self.ephemeral: dict[str, list[dict[str, Any]]] = {}
        self.invited: dict[str, list[dict[str, Any]]] = {}
        self.joined: set[str] = set()
        self.left: set[str] = set()
        self.to_device: list[dict[str, Any]] = []
        self.changed: set[str] = set()
        self.presence: dict[str, dict[str, Any]] = {}
        self.token: str | None = None
        account = self.call(
            "POST",
            "/v3/register",
            {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}},
        )
        self.token, self.user_id, self.device_id = account["access_token"], account["user_id"], account["device_id"]

    def ask(self, method: str, path: str, body: object = None, query: dict[str, str] | None = None) -> Reply:
        """One request below ``/_matrix/client``, whatever its answer."""
        if body is None and method in ("POST", "PUT"):
            body = {}
        return self._caller.call(method, "/_matrix/client" + path, token=self.token, body=body, query=query)

    def call(self, method: str, path: str, body: object = None, query: dict[str, str] | None = None) -> Any:
        """One request that has to succeed; its answer."""
        reply = self.ask(method, path, body, query)
        if reply.status != 200:
            raise Refused(f"{self.name} {method} {path}", reply)
        return reply.body

    def create(self, version: str, **settings: Any) -> str:
        """A room."""
        return str(self.call("POST", "/v3/createRoom", {"room_version": version, **settings})["room_id"])

    def join(self, room: str, *via: str) -> str:
        """By room ID or alias, through servers if need be."""
        query = {"via": via[0], "server_name": via[0]} if via else None
        return str(self.call("POST", f"/v3/join/{quote(room)}", {}, query)["room_id"])

    def say(self, room: str, text: str) -> str:
        """Send a message; its event ID."""
        path = f"/v3/rooms/{quote(room)}/send/m.room.message/{next(self._numbers)}"
        return str(self.call("PUT", path, {"msgtype": "m.text", "body": text})["event_id"])

    def put_state(self, room: str, type_: str, content: dict[str, Any], state_key: str = "") -> str:
        """Set state; its event ID."""
        path = f"/v3/rooms/{quote(room)}/state/{type_}/{quote(state_key)}"
        return str(self.call("PUT", path, content)["event_id"])

    def state(self, room: str, type_: str, state_key: str = "") -> dict[str, Any] | None:
        """The content of state, None if there is none."""
        reply = self.ask("GET", f"/v3/rooms/{quote(room)}/state/{type_}/{quote(state_key)}")
        return reply.body if reply.status == 200 else None

    def act(self, room: str, what: str, user: "Person | None" = None) -> None:
        """`invite`, `kick`, `ban`, `unban` someone, or `leave`, `forget`."""
        self.call("POST", f"/v3/rooms/{quote(room)}/{what}", {} if user is None else {"user_id": user.user_id})

    def members(self, room: str) -> dict[str, str]:
        """Memberships by user."""
        chunk = self.call("GET", f"/v3/rooms/{quote(room)}/members")["chunk"]
        return {event["state_key"]: event["content"]["membership"] for event in chunk}

    def sync(self, timeout_ms: int = 0) -> None:
        """One round."""
        query = {"timeout": str(timeout_ms), "filter": '{"room":{"timeline":{"limit":50}}}'}
        if self._since is not None:
            query["since"] = self._since
        answer = self.call("GET", "/v3/sync", None, query)
        self._since = answer["next_batch"]
        rooms = answer.get("rooms", {})
        for key, there in (("join", self.joined), ("leave", self.left)):
            for room, part in rooms.get(key, {}).items():
                for other in (self.joined, self.left):
                    other.discard(room)
                there.add(room)
                self.invited.pop(room, None)
                events = part.get("state", {}).get("events", []) + part.get("timeline", {}).get("events", [])
                self.timeline.setdefault(room, []).extend(events)
                self.ephemeral.setdefault(room, []).extend(part.get("ephemeral", {}).get("events", []))
        for room, part in rooms.get("invite", {}).items():
            self.invited[room] = part["invite_state"]["events"]
        for event in answer.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]
        self.to_device += answer.get("to_device", {}).get("events", [])
        self.changed |= set(answer.get("device_lists", {}).get("changed", []))

    def until(self, check: Callable[[], object], what: str) -> Any:
        """Sync until something is so; AssertionError with ``what`` after PATIENCE."""
        end = time.monotonic() + PATIENCE
        self.sync()
        while not (found := check()):
            assert time.monotonic() < end, f"{self.name} never saw {what}"
            self.sync(500)
        return found

    def event(self, room: str, event_id: str) -> dict[str, Any] | None:
        """An event that `sync` brought."""
        return next((one for one in self.timeline.get(room, []) if one["event_id"] == event_id), None)

    def sees(self, room: str, event_id: str, what: str = "an event") -> dict[str, Any]:
        """Wait for an event."""
        found: dict[str, Any] = self.until(lambda: self.event(room, event_id), what)
        return found

    def sees_member(self, room: str, other: "Person", membership: str) -> None:
        """Wait for a membership."""

        def there() -> bool:
            content = self.state(room, "m.room.member", other.user_id)
            return content is not None and content["membership"] == membership

        self.until(there, f"{other.user_id} with membership {membership}")
