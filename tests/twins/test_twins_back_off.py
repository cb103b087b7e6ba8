"""Scenes of requests to a server that is away, across restarts of the server that asks."""

import pytest

from tests.fakes.homeservers import Homes, Refused, settle
from tests.fakes.internet import Internet


def test_a_dead_server_is_left_alone_across_a_restart_until_it_shows_life(homes: Homes) -> None:
    internet = Internet(1)
    a, b = (homes.site(internet, name) for name in ("a.example", "b.example"))
    alice, bob = homes.person(a, "alice"), homes.person(b, "bob")
    room = bob.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
    settle(internet, [a, b])
    internet.cut = {frozenset((a.name, b.name))}

    def looks() -> float:
        """Asks for somebody of the dead server; how long that takes."""
        began = internet.clock.seconds()
        with pytest.raises(Refused):
            alice.ask("GET", f"/profile/{bob.user_id}")
        return internet.clock.seconds() - began

    assert looks() > 5
    assert looks() == 0
    a.stop()
    a.start()
    assert looks() == 0
    internet.cut = set()
    bob.ask("POST", f"/rooms/{room}/invite", {"user_id": alice.user_id})
    assert alice.ask("GET", f"/profile/{bob.user_id}") == {"displayname": "bob"}
