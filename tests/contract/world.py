"""A small world on a running server: people, a room with some history, keys, an alias, a filter."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from tests.contract.caller import Caller, Reply

V3 = "/_matrix/client/v3"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Person:
    """A user with one device."""

    user_id: str
    device_id: str
    token: str
    refresh_token: str | None

    @property
    def localpart(self) -> str:
        """The part between @ and colon."""
        return self.user_id[1:].split(":")[0]


class World:
    """Makes what a case needs, once where it can be shared."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._numbers = itertools.count(1)

    def unique(self, prefix: str) -> str:
        """A name that was not used before."""
        return f"{prefix}{next(self._numbers)}"

    def must(self, person: Person, method: str, path: str, body: object = None) -> Any:
        """A call below /_matrix/client/v3 that has to succeed; gives its JSON."""
        reply = self.caller.call(method, V3 + path, token=person.token, body=body)
        assert reply.status == 200, f"{method} {path}: {reply.status} {reply.body}"
        return reply.body

    def person(self) -> Person:
        """A new user."""
        auth = {"type": "m.login.dummy"}
        body = {"username": self.unique("person"), "password": PASSWORD, "auth": auth, "refresh_token": True}
        reply = self.caller.call("POST", f"{V3}/register", body=body)
        assert reply.status == 200, reply.body
        made = reply.body
        return Person(made["user_id"], made["device_id"], made["access_token"], made.get("refresh_token"))

    def guest(self) -> Person:
        """A new guest."""
        made = self.caller.call("POST", f"{V3}/register", query={"kind": "guest"}, body={}).body
        return Person(made["user_id"], made["device_id"], made["access_token"], None)

    @cached_property
    def gone(self) -> Person:
        """Somebody whose account is deactivated."""
        person = self.person()
        assert self.authenticated(person, "POST", f"{V3}/account/deactivate", {}).status == 200
        return person

    def room(self, *members: Person, **options: object) -> str:
        """A new public room of alice's with these members as well."""
        room_id = self.must(self.alice, "POST", "/createRoom", {"preset": "public_chat"} | options)["room_id"]
        for member in members:
            self.must(member, "POST", f"/rooms/{quote(room_id)}/join", {})
        return str(room_id)

    def message(self, room_id: str) -> str:
        """A new message of alice's in a room; gives its event id."""
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{self.unique('m')}"
        return str(self.must(self.alice, "PUT", path, {"msgtype": "m.text", "body": "hello"})["event_id"])

    def authenticated(self, person: Person, method: str, path: str, body: dict[str, Any]) -> Reply:
        """A call under user-interactive authentication, confirmed with the password where it is asked for."""
        first = self.caller.call(method, path, token=person.token, body=body)
        if first.status != 401 or not isinstance(first.body, dict) or "session" not in first.body:
            return first
        identifier = {"type": "m.id.user", "user": person.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        confirmed = body | {"auth": auth | {"session": first.body["session"]}}
        return self.caller.call(method, path, token=person.token, body=confirmed)

    @property
    def server_name(self) -> str:
        """The server's name."""
        return self.alice.user_id.split(":", 1)[1]

    @cached_property
    def alice(self) -> Person:
        """The one who asks, unless a case needs somebody of its own."""
        return self.person()

    @cached_property
    def bob(self) -> Person:
        """Alice's friend."""
        return self.person()

    @cached_property
    def room_id(self) -> str:
        """The room of alice and bob."""
        return self.room(self.bob)

    @cached_property
    def event_id(self) -> str:
        """A message in that room."""
        return self.message(self.room_id)

    @cached_property
    def alias(self) -> str:
        """Its alias."""
        alias = f"#{self.unique('alias')}:{self.server_name}"
        self.must(self.alice, "PUT", f"/directory/room/{quote(alias)}", {"room_id": self.room_id})
        return alias

    @cached_property
    def filter_id(self) -> str:
        """A stored filter of alice's."""
        path = f"/user/{quote(self.alice.user_id)}/filter"
        return str(self.must(self.alice, "POST", path, {"room": {"timeline": {"limit": 5}}})["filter_id"])

    @cached_property
    def backup_version(self) -> str:
        """A key backup of alice's."""
        body = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abcdefg"}}
        return str(self.must(self.alice, "POST", "/room_keys/version", body)["version"])
