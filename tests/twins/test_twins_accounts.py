"""What becomes of an account reaches all who have to hear of it: the wiring of whole servers."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
from twisted.internet.defer import Deferred

from tests.fakes.homeservers import PASSWORD, Homes, Person
from tests.fakes.internet import Internet
from tests.unit.sync.test_live import FakeSocket


def test_b02_a_lock_ends_whatever_waits(homes: Homes) -> None:
    """Long poll, the poll from before it, WebSocket: of the one account and of no other."""
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    # Accounts outlive a test: nobody else uses this one.
    people = [homes.person(site, "locked"), homes.person(site, "alice")]
    ended: list[list[Any]] = []
    sockets: list[FakeSocket] = []
    for person in people:
        since = person.ask("GET", "/sync?set_presence=offline")["next_batch"]
        for path in (f"/sync?since={since}&timeout=30000&set_presence=offline", "/events?timeout=30000"):
            answers: list[Any] = []
            person.begin("GET", path).addBoth(answers.append)
            ended.append(answers)
        socket = FakeSocket()
        site.homeserver.live.connected(socket)  # type: ignore[arg-type]
        hello = {"type": "hello", "access_token": person.token, "set_presence": "offline"}
        site.homeserver.live.message(socket, orjson.dumps(hello))  # type: ignore[arg-type]
        sockets.append(socket)
    internet.clock.advance(1)
    assert not any(ended) and [socket.code for socket in sockets] == [None, None]
    lock = site.services.accounts.deactivation.set_locked
    internet.run(Deferred.fromCoroutine(lock(people[0].user_id, True)))
    internet.clock.advance(0.1)
    assert [bool(answers) for answers in ended] == [True, True, False, False]
    assert [socket.code is not None for socket in sockets] == [True, False]
    internet.run(Deferred.fromCoroutine(lock(people[0].user_id, False)))


def test_rooms_hear_that_a_guest_has_become_a_user(homes: Homes) -> None:
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    alice = homes.person(site, "alice")
    site.kill()
    site.config = replace(site.config, allow_guest_access=True)
    site.start()
    state = [{"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}]
    room = quote(alice.ask("POST", "/createRoom", {"preset": "public_chat", "initial_state": state})["room_id"])
    made = alice.ask("POST", "/register?kind=guest", {})
    name = made["user_id"][1:].partition(":")[0]
    guest = Person(site, name, made["access_token"])
    guest.ask("POST", f"/join/{room}", {})
    member = f"/rooms/{room}/state/m.room.member/{quote(guest.user_id)}"
    assert alice.ask("GET", member)["kind"] == "guest"
    auth = {"type": "m.login.dummy"}
    body = {"username": name, "password": PASSWORD, "guest_access_token": guest.token, "auth": auth}
    user = alice.ask("POST", "/register", body)
    assert user["user_id"] == guest.user_id
    internet.clock.advance(1)
    content = alice.ask("GET", member)
    assert "kind" not in content and content["membership"] == "join"
