"""Settings at work in whole servers."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from config.schema import InviteLimits, JoinLimits, RateLimit
from tests.fakes.homeservers import Homes, Person, Refused
from tests.fakes.internet import Internet

ONCE = RateLimit(per_second=0.001, burst_count=1)


def refusal(person: Person, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    with pytest.raises(Refused) as refused:
        person.ask(method, path, body)
    return refused.value.status, refused.value.errcode


def test_limits_on_invites_and_key_requests(homes: Homes) -> None:
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    alice, bob = homes.person(site, "alice"), homes.person(site, "bob")
    homes.person(site, "carol")
    rooms = [quote(alice.ask("POST", "/createRoom", {})["room_id"]) for _ in range(3)]
    site.kill()
    limits = InviteLimits(per_room=ONCE, per_user=RateLimit(per_second=0.001, burst_count=2), per_issuer=None)
    site.config = replace(site.config, rc_invites=limits, rc_key_requests=ONCE)
    site.start()
    alice.ask("POST", f"/rooms/{rooms[0]}/invite", {"user_id": bob.user_id})
    too_often = (429, "M_LIMIT_EXCEEDED")
    assert refusal(alice, "POST", f"/rooms/{rooms[0]}/invite", {"user_id": "@carol:a.example"}) == too_often
    # The state event is no way round it.
    member = f"/rooms/{rooms[0]}/state/m.room.member/@carol:a.example"
    assert refusal(alice, "PUT", member, {"membership": "invite"}) == too_often
    alice.ask("POST", f"/rooms/{rooms[1]}/invite", {"user_id": bob.user_id})
    assert refusal(alice, "POST", f"/rooms/{rooms[2]}/invite", {"user_id": bob.user_id}) == too_often
    # Only who may invite uses a room's tokens up.
    assert refusal(bob, "POST", f"/rooms/{rooms[2]}/invite", {"user_id": "@carol:a.example"}) == (403, "M_FORBIDDEN")
    for kind, first in (("m.room_key_request", True), ("m.dummy", True), ("m.room_key_request", False)):
        path = f"/sendToDevice/{kind}/{alice.new_transaction()}"
        if first:
            alice.ask("PUT", path, {"messages": {}})
        else:
            assert refusal(alice, "PUT", path, {"messages": {}}) == too_often


def test_limit_on_joins_of_rooms_elsewhere(homes: Homes) -> None:
    internet = Internet(1)
    here, there = homes.site(internet, "a.example"), homes.site(internet, "b.example")
    alice, bob = homes.person(here, "alice"), homes.person(there, "bob")
    rooms = [bob.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"] for _ in range(2)]
    here.kill()
    here.config = replace(here.config, rc_joins=JoinLimits(local=None, remote=ONCE))
    here.start()
    alice.ask("POST", f"/join/{quote(rooms[0])}?via=b.example", {})
    path = f"/join/{quote(rooms[1])}?via=b.example"
    assert refusal(alice, "POST", path, {}) == (429, "M_LIMIT_EXCEEDED")


@pytest.mark.parametrize("open_", [True, False])
def test_who_may_read_the_room_directory(homes: Homes, open_: bool) -> None:
    internet = Internet(1)
    site = homes.site(internet, "a.example")
    alice = homes.person(site, "alice")
    site.kill()
    site.config = replace(site.config, allow_public_rooms_without_auth=open_)
    site.start()
    assert alice.ask("GET", "/publicRooms")["chunk"] == []
    answers: list[Any] = []
    site.request("GET", "/_matrix/client/v3/publicRooms").addCallback(answers.append)
    internet.clock.advance(1)
    assert answers[0].status == (200 if open_ else 401)
