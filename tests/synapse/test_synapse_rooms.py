"""Rooms shared with Synapse: joining, talking, inviting, leaving, history; from either side."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.synapse.peers import FolkmootPeer, SynapsePeer
from tests.synapse.person import Person, Refused

pytestmark = pytest.mark.synapse

Make = Callable[[str], Person]
Servers = tuple[FolkmootPeer, SynapsePeer]
VERSIONS = ["6", "10", "11", "12"]
WITH_KNOCKING = [version for version in VERSIONS if version != "6"]
"""Knocking came with room version 7, restricted joins with 8."""
DIRECTIONS = ["our room", "their room"]


@pytest.fixture(params=DIRECTIONS)
def pair(request: Any, ours: Make, theirs: Make) -> tuple[Person, Person]:
    """Who makes the room, and who comes from the other server."""
    if request.param == "our room":
        return ours("alice"), theirs("bob")
    return theirs("alice"), ours("bob")


def server_of(person: Person) -> str:
    """The server name of a user."""
    return person.user_id.partition(":")[2]


def meet(host: Person, guest: Person, version: str, **settings: Any) -> str:
    """A public room with both in it."""
    room = host.create(version, preset="public_chat", **settings)
    host.sync()
    guest.join(room, server_of(host))
    guest.until(lambda: room in guest.joined, "the room")
    host.sees_member(room, guest, "join")
    return room


@pytest.mark.parametrize("version", VERSIONS)
def test_talking(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = host.create(version, preset="public_chat", room_alias_name=host.name, topic="Before")
    host.sync()
    assert guest.join(f"#{host.name}:{server_of(host)}") == room
    guest.until(lambda: room in guest.joined, "the room")
    host.sees_member(room, guest, "join")
    assert guest.members(room) == host.members(room) == {host.user_id: "join", guest.user_id: "join"}
    assert guest.state(room, "m.room.topic") is not None

    for number in range(3):
        said = host.say(room, f"hello {number}")
        assert guest.sees(room, said, "a message")["content"]["body"] == f"hello {number}"
        said = guest.say(room, f"good day {number}")
        assert host.sees(room, said, "an answer")["content"]["body"] == f"good day {number}"

    changed = host.put_state(room, "m.room.topic", {"topic": "After"})
    guest.sees(room, changed, "the topic")
    assert (guest.state(room, "m.room.topic") or {})["topic"] == "After"

    wrong = guest.say(room, "a slip")
    host.sees(room, wrong)
    redaction = guest.call("PUT", f"/v3/rooms/{quote(room)}/redact/{quote(wrong)}/r1", {"reason": "slip"})["event_id"]
    host.sees(room, redaction, "the redaction")
    seen = host.call("GET", f"/v3/rooms/{quote(room)}/event/{quote(wrong)}")
    assert seen["content"] == {}


@pytest.mark.parametrize("version", VERSIONS)
def test_invitations(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = host.create(version, preset="private_chat", name="Inner circle", invite=[guest.user_id])
    host.sync()
    stripped = guest.until(lambda: guest.invited.get(room), "an invitation")
    assert {"m.room.name", "m.room.member"} <= {event["type"] for event in stripped}
    guest.join(room)
    host.sees_member(room, guest, "join")
    said = host.say(room, "welcome")
    guest.sees(room, said)

    refused = host.create(version, preset="private_chat", invite=[guest.user_id])
    guest.until(lambda: guest.invited.get(refused), "the second invitation")
    guest.act(refused, "leave")
    host.sees_member(refused, guest, "leave")
    with pytest.raises(Refused):
        guest.join(refused, server_of(host))

    by_state = host.create(version, preset="private_chat")
    host.put_state(by_state, "m.room.member", {"membership": "invite"}, guest.user_id)
    guest.until(lambda: guest.invited.get(by_state), "the invitation set as state")
    guest.join(by_state)
    host.sees_member(by_state, guest, "join")

    taken_back = host.create(version, preset="private_chat", invite=[guest.user_id])
    guest.until(lambda: guest.invited.get(taken_back), "the third invitation")
    host.act(taken_back, "kick", guest)
    guest.until(lambda: taken_back not in guest.invited, "the third invitation taken back")


@pytest.mark.parametrize("version", VERSIONS)
def test_coming_and_going(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = meet(host, guest, version)
    host.act(room, "kick", guest)
    guest.until(lambda: room in guest.left, "being kicked")
    guest.join(room, server_of(host))
    host.sees_member(room, guest, "join")
    guest.until(lambda: room in guest.joined, "the room again")
    guest.sees(room, host.say(room, "back again"))
    guest.act(room, "leave")
    host.sees_member(room, guest, "leave")
    host.say(room, "nobody hears this")
    guest.join(room, server_of(host))
    host.sees_member(room, guest, "join")
    host.sees(room, guest.say(room, "once more"))
    host.act(room, "ban", guest)
    guest.until(lambda: room in guest.left, "being banned")
    with pytest.raises(Refused) as refused:
        guest.join(room, server_of(host))
    assert refused.value.reply.status == 403
    host.act(room, "unban", guest)
    guest.join(room, server_of(host))
    host.sees_member(room, guest, "join")


@pytest.mark.parametrize("version", VERSIONS)
def test_history_from_before(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = host.create(version, preset="public_chat")
    before = [host.say(room, f"old {number}") for number in range(30)]
    guest.join(room, server_of(host))
    found: list[str] = []
    token = None
    for _ in range(20):
        query = {"dir": "b", "limit": "10"} | ({"from": token} if token else {})
        page = guest.call("GET", f"/v3/rooms/{quote(room)}/messages", None, query)
        found += [event["event_id"] for event in page["chunk"] if event["type"] == "m.room.message"]
        token = page.get("end")
        if token is None:
            break
    assert found == before[::-1]


@pytest.mark.parametrize("version", WITH_KNOCKING)
def test_restricted_joins(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    space = host.create(version, preset="public_chat")
    allow = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room = host.create(
        version,
        preset="private_chat",
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": allow}],
    )
    with pytest.raises(Refused) as refused:
        guest.join(room, server_of(host))
    assert refused.value.reply.status == 403
    guest.join(space, server_of(host))
    host.sees_member(space, guest, "join")
    guest.join(room, server_of(host))
    host.sees_member(room, guest, "join")
    guest.until(lambda: room in guest.joined, "the room")
    guest.sees(room, host.say(room, "you may"))


@pytest.mark.parametrize("join_rule", ["knock", "knock_restricted"])
@pytest.mark.parametrize("version", WITH_KNOCKING)
def test_knocking(pair: tuple[Person, Person], version: str, join_rule: str) -> None:
    host, guest = pair
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": join_rule}}
    room = host.create(version, preset="private_chat", initial_state=[rule])
    guest.call("POST", f"/v3/knock/{quote(room)}", {"reason": "please"}, {"via": server_of(host)})
    host.sees_member(room, guest, "knock")
    host.act(room, "invite", guest)
    guest.until(lambda: guest.invited.get(room), "the invitation")
    guest.join(room, server_of(host))
    host.sees_member(room, guest, "join")
    guest.sees(room, host.say(room, "come in"))


@pytest.mark.parametrize("version", VERSIONS)
def test_speaking_at_the_same_time(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = meet(host, guest, version)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda who: [who.say(room, f"{who.name} {n}") for n in range(15)], (host, guest)))
    for who in (host, guest):
        for event_id in said[0] + said[1]:
            who.sees(room, event_id)
    last = host.put_state(room, "m.room.topic", {"topic": "Both were heard"})
    guest.sees(room, last)
    assert guest.state(room, "m.room.topic") == host.state(room, "m.room.topic")


@pytest.mark.parametrize("version", VERSIONS)
def test_power_given_to_the_other_server(pair: tuple[Person, Person], version: str) -> None:
    host, guest = pair
    room = meet(host, guest, version)
    with pytest.raises(Refused):
        guest.put_state(room, "m.room.name", {"name": "Mine"})
    levels = host.state(room, "m.room.power_levels") or {}
    levels["users"][guest.user_id] = 50
    guest.sees(room, host.put_state(room, "m.room.power_levels", levels))
    host.sees(room, guest.put_state(room, "m.room.name", {"name": "Mine"}))
    assert host.state(room, "m.room.name") == {"name": "Mine"}


@pytest.mark.parametrize("joining", ["ours", "theirs"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_fast_join_is_completed(servers: Servers, ours: Make, theirs: Make, joining: str, version: str) -> None:
    """The members of a named room are left out of the answer to the join, whoever answers; they come behind."""
    here, there = (theirs, ours) if joining == "ours" else (ours, theirs)
    host, guest = here("alice"), there("bob")
    room = host.create(version, preset="public_chat", name="many people")
    others = [here(f"other{number}") for number in range(5)]
    for other in others:
        other.join(room)
    guest.join(room, server_of(host))
    said = guest.say(room, "at once")
    host.sees(room, said, "what was said at once")
    answer = host.say(room, "welcome")
    guest.sees(room, answer, "the answer")
    assert guest.members(room) == {user.user_id: "join" for user in (host, guest, *others)}
    if joining == "ours":
        assert f"{room} is complete" in (servers[0].directory / "output.log").read_text()
    else:
        assert f"State resync complete for {room}" in (servers[1].directory / "synapse.log").read_text()
