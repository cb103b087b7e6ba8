"""Scenes of looking for the event at a time that lies before what a server has of a room."""

from typing import Any

import orjson
import pytest

from homeserver.client.event_context import EventContext
from homeserver.client.room_event_by_timestamp import RoomEventByTimestamp
from homeserver.rooms.read import Reading
from homeserver.rooms.sight import Sights
from homeserver.web.call import Call, Requester
from homeserver.web.limits import Limits
from homeserver.web.router import Router
from storage.log import events as event_log
from tests.fakes.town import Town, Twin


class Scene:
    """alice of a has said something every minute, half an hour long; then bob of b has joined."""

    def __init__(self) -> None:
        self.town = Town()
        self.a, self.b = self.town.server("a"), self.town.server("b")
        self.room = self.a.create("alice")
        self.said: list[tuple[str, int]] = []
        for number in range(30):
            self.town.clock.advance(60)
            event_id = self.a.say("alice", self.room, f"old {number}")
            record = event_log.event_by_id(self.a.log, event_id)
            assert record is not None
            self.said.append((event_id, record.origin_server_ts))
        self.town.clock.advance(60)
        self.b.join("bob", self.room, via=self.a)
        self.town.settle()
        self.joined = self.town.now_ms()
        reading = Reading(self.b.log, Sights(), self.town.now_ms)
        endpoints: list[Any] = [RoomEventByTimestamp(reading, self.b.federated.moments), EventContext(reading)]
        routes = [route for endpoint in endpoints for route in endpoint.routes()]
        self.router = Router(routes, Tokens(self.b), Limits({}, self.town.clock.seconds))  # type: ignore[arg-type]

    def get(self, path: str, query: str, who: str = "bob") -> tuple[int, Any]:
        uri = f"/_matrix/client/{path}?{query}"
        answer = self.town.run(self.router.handle(Call("GET", uri, {"authorization": f"Bearer {who}"}, b"", "192.0.2.1")))
        return answer.status, orjson.loads(answer.encoded())

    def nearest(self, ts: int, direction: str, who: str = "bob") -> tuple[int, Any]:
        return self.get(f"v1/rooms/{self.room}/timestamp_to_event", f"ts={ts}&dir={direction}", who)

    def asked(self, what: str) -> int:
        return len([path for origin, _, _, path in self.town.requests if origin == "b" and what in path])


class Tokens:
    """Whoever names a local part is that user."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester:
        return self._twin.who(token)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("direction", ["f", "b"])
def test_an_event_from_before_the_join_is_found_and_fetched(scene: Scene, direction: str) -> None:
    event_id, ts = scene.said[12]
    status, body = scene.nearest(ts + (1 if direction == "b" else -1), direction)
    assert (status, body) == (200, {"event_id": event_id, "origin_server_ts": ts})
    status, around = scene.get(f"v3/rooms/{scene.room}/context/{event_id}", "limit=4")
    assert status == 200
    assert [event["content"]["body"] for event in around["events_before"]] == ["old 11", "old 10"]
    assert [event["content"]["body"] for event in around["events_after"]] == ["old 13", "old 14"]


def test_nobody_is_asked_for_what_is_here(scene: Scene) -> None:
    event_id = scene.a.say("alice", scene.room, "new")
    scene.town.settle()
    assert scene.nearest(scene.town.now_ms(), "b")[1]["event_id"] == event_id
    assert scene.nearest(scene.joined, "f")[1]["event_id"] == event_id
    assert scene.asked("timestamp_to_event") == scene.asked("backfill") == 0


def test_nobody_is_asked_by_who_may_not_look(scene: Scene) -> None:
    assert scene.nearest(scene.said[12][1], "f", "eve")[0] == 403
    assert scene.asked("timestamp_to_event") == 0


def test_when_nobody_answers_what_is_here_has_to_do(scene: Scene) -> None:
    scene.town.cut.add(frozenset("ab"))
    assert scene.nearest(scene.said[12][1], "b")[0] == 404
    status, body = scene.nearest(scene.said[12][1], "f")
    assert status == 200 and body["origin_server_ts"] > scene.said[-1][1]


@pytest.mark.parametrize(("direction", "wrong"), [("f", -1), ("b", 1), ("f", 10**9)])
def test_an_answer_that_is_not_closer_is_none(scene: Scene, direction: str, wrong: int) -> None:
    """On the other side of the time, or further away than what is here."""
    ts = scene.said[12][1]

    async def lie(*_: Any) -> tuple[str, int]:
        return scene.said[0][0], ts + wrong

    scene.b.federated.moments._peers.timestamp_to_event = lie  # type: ignore[method-assign]
    scene.nearest(ts, direction)
    assert scene.asked("backfill") == 0


def test_a_name_that_leads_nowhere_costs_a_bounded_fetch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.rooms.history.MAX_PAGE", 5)
    monkeypatch.setattr("homeserver.rooms.moments.MAX_PAGES", 3)

    async def lie(*_: Any) -> tuple[str, int]:
        return "$nothing", scene.said[0][1]

    scene.b.federated.moments._peers.timestamp_to_event = lie  # type: ignore[method-assign]
    status, _ = scene.nearest(scene.said[0][1], "f")
    assert status == 200 and scene.asked("backfill") == 3
