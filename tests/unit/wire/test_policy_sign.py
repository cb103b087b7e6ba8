"""Asking a policy server, as it goes over the wire."""

from typing import Any

import orjson
import pytest
import pytest_twisted

from federation.outbound.calls import Calls
from federation.rules.errors import MatrixError
from homeserver.rooms.remote_peers import RemotePeers
from tests.fakes.wire import World, answer

PDU = {"type": "m.room.message", "room_id": "!r:x"}
SIGNATURES = {"police.example": {"ed25519:policy_server": "abc"}}


@pytest.fixture
def world() -> World:
    return World()


def ask(world: World, *, although_silent: bool = True) -> Any:
    return RemotePeers(Calls(world.client, 1 << 20)).policy_signatures("police.example", PDU, although_silent=although_silent)


@pytest_twisted.ensureDeferred
async def test_the_event_is_posted_signed(world: World) -> None:
    world.http.on("police.example", 8448, lambda sent: answer(SIGNATURES))
    assert await ask(world) == SIGNATURES
    sent = world.http.sent[-1]
    assert (sent.method, sent.path) == ("POST", "/_matrix/policy/v1/sign")
    assert sent.body is not None and orjson.loads(sent.body) == PDU
    assert sent.headers["Authorization"].startswith("X-Matrix ")


@pytest_twisted.ensureDeferred
async def test_e01_who_has_not_answered_is_asked_for_our_users_but_not_for_others_events(world: World) -> None:
    with pytest.raises(MatrixError) as caught:
        await ask(world)
    assert caught.value.status == 502
    world.http.on("police.example", 8448, lambda sent: answer(SIGNATURES))
    with pytest.raises(MatrixError):
        await ask(world, although_silent=False)
    assert await ask(world) == SIGNATURES
    assert await ask(world, although_silent=False) == SIGNATURES


@pytest.mark.parametrize("body", [[], "x", {"police.example": "x"}, {"police.example": []}, b"x" * 100_000])
@pytest_twisted.ensureDeferred
async def test_answers_that_are_none(world: World, body: Any) -> None:
    world.http.on("police.example", 8448, lambda sent: answer(body))
    with pytest.raises(MatrixError) as caught:
        await ask(world)
    assert caught.value.status == 502


@pytest_twisted.ensureDeferred
async def test_a_limit_says_when_to_come_again(world: World) -> None:
    body = {"errcode": "M_LIMIT_EXCEEDED", "error": "Slowly", "retry_after_ms": 700}
    world.http.on("police.example", 8448, lambda sent: answer(body, 429))
    with pytest.raises(MatrixError) as caught:
        await ask(world)
    assert (caught.value.status, caught.value.body()) == (429, body)
