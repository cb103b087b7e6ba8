"""What was said while one of the servers was away."""

import asyncio

import pytest

from tests.synapse.test_synapse_rooms import VERSIONS, Make, Servers, meet

pytestmark = pytest.mark.synapse


@pytest.mark.parametrize("away", ["ours", "theirs"])
@pytest.mark.parametrize("version", VERSIONS)
def test_catching_up(servers: Servers, ours: Make, theirs: Make, version: str, away: str) -> None:
    host, guest = ours("alice"), theirs("bob")
    room = meet(host, guest, version)
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
