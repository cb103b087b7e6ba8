"""A server that takes part in a room and answers what it likes: it delays itself alone, and gets all of it once it is honest."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from homeserver.web.call import Answer
from tests.fakes.homeservers import Homes, Person, Refused, Site, settle
from tests.fakes.internet import Internet

ANSWERS: dict[str, Callable[[], Any]] = {
    "no JSON": lambda: Answer(200, b"<html>", "text/html"),
    "a failure": lambda: Answer(500, {"errcode": "M_UNKNOWN", "error": "down"}),
    "a redirect": lambda: Answer(302, b"", headers={"location": "https://honest.example/"}),
    "too much": lambda: Answer(200, b'{"pdus": "' + b"x" * 20_000_000 + b'"}'),
    "nothing, ever": Deferred,
}


class Liar:
    """Stands for a server's router."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.start = lambda call: answer()


class Place:
    """alice's room with bob of an honest server and mallory of another."""

    def __init__(self, homes: Homes) -> None:
        self.internet = Internet(1)
        self.ours, self.honest, self.evil = (
            homes.site(self.internet, name) for name in ("ours.example", "honest.example", "evil.example")
        )
        self.alice, self.bob = homes.person(self.ours, "alice"), homes.person(self.honest, "bob")
        self.mallory = homes.person(self.evil, "mallory")
        self.room: str = self.alice.ask("POST", "/createRoom", {"preset": "public_chat"})["room_id"]
        for person in (self.bob, self.mallory):
            person.ask("POST", f"/join/{quote(self.room)}?server_name={self.ours.name}", {})
        settle(self.internet, self.sites)

    @property
    def sites(self) -> Iterator[Site]:
        yield from (self.ours, self.honest, self.evil)

    def wait(self, seconds: float) -> None:
        end = self.internet.clock.seconds() + seconds
        while self.internet.clock.seconds() < end:
            self.internet.step()


@pytest.fixture
def place(homes: Homes) -> Place:
    return Place(homes)


@pytest.mark.parametrize("kind", ANSWERS)
def test_e01_a_server_that_answers_badly_delays_only_itself(place: Place, kind: str) -> None:
    honest_router = place.evil.host.router
    place.evil.host.router = Liar(ANSWERS[kind])  # type: ignore[assignment]
    for number in range(5):
        place.alice.say(place.room, f"{number}")
        place.wait(1)
        assert place.bob.texts(place.room)[-1] == f"{number}", "nobody waits for the liar"
    place.wait(120)
    tried = [path for origin, to, _, path in place.internet.requests if (origin, to) == (place.ours.name, place.evil.name)]
    assert 1 <= sum("/send/" in path for path in tried) < 20, "tried again, and less and less often"
    place.evil.host.router = honest_router
    place.mallory.say(place.room, "back")  # a sign of life: it is not waited for any longer
    settle(place.internet, place.sites)
    assert sorted(place.mallory.texts(place.room)) == [*(f"{number}" for number in range(5)), "back"], "nothing is lost"


@pytest.mark.parametrize("kind", ANSWERS)
def test_e01_questions_to_it_end_with_an_error(place: Place, kind: str) -> None:
    """In bounded time, and with a Matrix error of ours: nothing of what it sent is passed on."""
    place.evil.host.router = Liar(ANSWERS[kind])  # type: ignore[assignment]

    def asks(person: Person, method: str, path: str, body: Any = None) -> None:
        began = place.internet.clock.seconds()
        with pytest.raises(Refused) as refused:
            person.ask(method, path, body)
        assert refused.value.status in (404, 502, 503, 504) and refused.value.errcode
        assert place.internet.clock.seconds() - began < 120

    asks(place.alice, "GET", f"/profile/{quote('@nobody:evil.example')}")
    asks(place.alice, "GET", f"/directory/room/{quote('#x:evil.example')}")
    asks(place.alice, "POST", f"/join/{quote('!x:evil.example')}?server_name=evil.example", {})
