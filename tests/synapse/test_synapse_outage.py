"""What was said while one of the servers was away."""

import asyncio
from collections.abc import Callable

import pytest

from tests.synapse.peers import FolkmootPeer, SynapsePeer
from tests.synapse.person import Person
from tests.synapse.test_synapse_rooms import meet

pytestmark = pytest.mark.synapse


@pytest.mark.parametrize("away", ["ours", "theirs"])
def test_catching_up(
    servers: tuple[FolkmootPeer, SynapsePeer],
    ours: Callable[[str], Person],
    theirs: Callable[[str], Person],
    away: str,
) -> None:
    host, guest = ours("alice"), theirs("bob")
    room = meet(host, guest, "12")
    stays, returns = (guest, host) if away == "ours" else (host, guest)
    server = servers[0 if away == "ours" else 1]
    server.stop()
    said = [stays.say(room, f"nobody listens {number}") for number in range(15)]
    asyncio.run(server.start())
    answer = returns.say(room, "I am back")
    stays.sees(room, answer, "the return")
    said.append(stays.say(room, "welcome back"))
    for event_id in said:
        returns.sees(room, event_id, "what was said meanwhile")
