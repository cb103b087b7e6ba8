"""Seeded simulations: three servers, a bad wire, people who do things at random; in the end everybody agrees.

A failing run prints its seed. ``FOLKMOOT_SEEDS`` runs more of them.
"""

import os

import pytest
from twisted.internet.defer import ensureDeferred

from federation.rules.errors import MatrixError
from tests.fakes.town import Town, Twin

SEEDS = int(os.environ.get("FOLKMOOT_SEEDS", "12"))
STEPS = 40


def act(town: Town, servers: list[Twin], room: str) -> None:
    """Somebody does something, nobody waits for it."""
    twin = town.chance.choice(servers)
    name = {"a": "alice", "b": "bob", "c": "carol"}[twin.name]
    what = town.chance.random()
    who = twin.who(name)
    if what < 0.55:
        body = {"msgtype": "m.text", "body": str(town.chance.random())}
        work = twin.sending.message(who, room, "m.room.message", body, None)
    elif what < 0.75:
        work = twin.sending.state(who, room, "m.room.topic", "", {"topic": str(town.chance.random())})
    elif what < 0.85:
        work = twin.sending.state(who, room, "m.room.name", "", {"name": str(town.chance.random())})
    elif what < 0.93:
        other = f"@guest{town.chance.randrange(3)}:{town.chance.choice(servers).name}"
        work = twin.membership.ban(who, room, other, None)
    else:
        users = {"@alice:a": 100, "@bob:b": town.chance.choice([100, 50]), "@carol:c": 50}
        levels = {"users": users, "state_default": 50, "ban": 50}
        work = twin.sending.state(who, room, "m.room.power_levels", "", levels)
    ensureDeferred(work).addErrback(lambda failure: failure.trap(MatrixError))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_servers_agree_in_the_end(seed: int) -> None:
    town = Town(seed)
    a, b, c = town.server("a"), town.server("b"), town.server("c")
    version = ["2", "6", "10", "11", "12"][seed % 5]
    room = a.create("alice", version)
    a.state("alice", room, "m.room.history_visibility", {"history_visibility": "shared"})
    b.join("bob", room, via=a)
    c.join("carol", room, via=b)
    town.settle()
    users = {"@bob:b": 100, "@carol:c": 50} | ({} if version == "12" else {"@alice:a": 100})
    a.state("alice", room, "m.room.power_levels", {"users": users, "state_default": 50, "ban": 50})
    town.settle()
    town.weather.loss, town.weather.duplicates, town.weather.delay = 0.15, 0.2, 3.0
    servers = [a, b, c]
    for step in range(STEPS):
        act(town, servers, room)
        town.clock.advance(town.chance.random() * 2)
        if step % 12 == 5:
            town.cut = {frozenset(town.chance.sample("abc", 2))}
        elif step % 12 == 10:
            town.cut = set()
    town.cut = set()
    town.weather.loss = town.weather.duplicates = 0.0
    town.settle(3600)
    for twin in servers:  # gaps that could not be filled then are filled with the next events
        town.clock.advance(700)
        twin.say({"a": "alice", "b": "bob", "c": "carol"}[twin.name], room, "the end")
        town.settle(3600)
    for twin in servers:  # what a gap swallowed is there for who pages back
        for _ in range(20):
            if not town.run(twin.federated.history.fetch(room)):
                break
    story = f"seed {seed}, room version {version}"
    for other in (b, c):
        assert other.state_of(room) == a.state_of(room), story
        assert other.heads(room) == a.heads(room), story
        assert set(other.bodies(room)) == set(a.bodies(room)), story
    for twin in servers:
        meta = twin.rooms.get(room).meta
        assert meta.joined == 3, story
