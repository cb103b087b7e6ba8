"""A whole server whose disk stops answering for a while, and then goes on or is given up."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.defer import Deferred

from storage.log.append import STALL_SECONDS
from storage.log.view import Rows
from tests.fakes.homeservers import Homes, Person, Refused, Site
from tests.fakes.internet import Internet

Done = Callable[[BaseException | None], None]
TEXT = {"msgtype": "m.text", "body": "into the void"}


class Scene:
    """Alice in a room, and a disk that can be held up."""

    def __init__(self, homes: Homes) -> None:
        self.internet = Internet(1)
        self.site: Site = homes.site(self.internet, "a.example")
        self.alice: Person = homes.person(self.site, "alice")
        self.room = quote(self.alice.ask("POST", "/createRoom", {"preset": "private_chat"})["room_id"])
        self.since = self.alice.ask("GET", "/sync")["next_batch"]
        self.held: list[tuple[Rows, Done]] = []

    def hold(self) -> None:
        """From now on the disk takes what it is given and says nothing."""
        assert self.site.store is not None
        self.site.store.commit = lambda rows, done: self.held.append((rows, done))  # type: ignore[method-assign]

    def go_on(self) -> None:
        """The disk has done what it was given."""
        store: Any = self.site.store
        del store.commit
        for rows, done in self.held:
            store._apply(rows, done)

    def send(self, transaction: str) -> "Deferred[Any]":
        path = f"/rooms/{self.room}/send/m.room.message/{transaction}"
        return self.alice.begin("PUT", path, TEXT)

    def refused(self, work: "Deferred[Any]") -> tuple[int, object]:
        with pytest.raises(Refused) as caught:
            self.internet.run(work, 2 * STALL_SECONDS)
        return caught.value.status, caught.value.errcode

    def health(self) -> int:
        return int(self.internet.run(self.site.request("GET", "/health")).status)

    def bodies(self) -> list[str]:
        answer = self.alice.ask("GET", f"/rooms/{self.room}/messages?dir=b")
        return [event["content"].get("body", "") for event in answer["chunk"] if event["type"] == "m.room.message"]


@pytest.fixture
def scene(homes: Homes) -> Scene:
    return Scene(homes)


def test_a_hung_disk_is_answered_with_503_and_the_message_comes_once(scene: Scene) -> None:
    assert scene.health() == 200
    scene.hold()
    work = scene.send("t1")
    assert scene.refused(work) == (503, "M_UNKNOWN")
    # Until it goes on nothing is begun that writes; what only reads is answered.
    before = scene.internet.clock.seconds()
    assert scene.refused(scene.send("t2")) == (503, "M_UNKNOWN")
    assert scene.internet.clock.seconds() == before
    assert scene.bodies() == []
    assert scene.alice.ask("GET", f"/sync?since={scene.since}")["next_batch"] == scene.since
    assert scene.health() == 503
    scene.go_on()
    assert scene.health() == 200
    event_id = scene.internet.run(scene.send("t1"))["event_id"]
    assert scene.internet.run(scene.send("t1"))["event_id"] == event_id
    assert scene.bodies() == ["into the void"]


def test_a_repetition_waits_for_what_it_repeats(scene: Scene) -> None:
    scene.hold()
    first, second = scene.send("t1"), scene.send("t1")
    assert scene.refused(second) == (503, "M_UNKNOWN")
    assert first.called
    scene.site.kill()
    scene.site.start()
    # What was not committed never was: the same transaction is done now.
    assert scene.bodies() == []
    first.addErrback(lambda _: None)
    scene.internet.run(scene.send("t1"))
    assert scene.bodies() == ["into the void"]


def test_a_stop_does_not_wait_for_a_hung_disk(scene: Scene) -> None:
    scene.hold()
    scene.refused(scene.send("t1"))
    scene.site.stop()
    scene.site.start()
    assert scene.bodies() == []
