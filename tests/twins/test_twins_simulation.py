"""Seeded simulations: three whole homeservers, a bad wire, servers that stop, die and come back, wall clocks that jump,
people who talk, whisper, redact, invite, ban, promote and change who may come in. In every third run guests come and go,
in every third somebody of a fourth server does, over the wire and in any weather. In the end everybody agrees on state,
heads and timeline, and nothing that a client was told is sent was lost or doubled.

A failing run prints its seed, with which it plays again. ``SEEDS`` says how many seeds the nightly run takes, ``FIRST_SEED``
where it begins.
"""

import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from federation.wire.http import HttpFailure
from tests.fakes.homeservers import Homes, Person, Refused, Site, settle
from tests.fakes.internet import Internet

SEEDS = 200
NIGHTLY = int(os.environ.get("SEEDS", "2000"))
FIRST_NIGHTLY = int(os.environ.get("FIRST_SEED", str(SEEDS)))
STEPS = 40
GUEST_TEXT = "a guest speaks"
VERSIONS = ["2", "6", "9", "10", "11", "12"]
HOUR_MS = 3_600_000


class Story:
    """One run of chance."""

    def __init__(self, seed: int, homes: Homes) -> None:
        self.seed = seed
        self.version = VERSIONS[seed % len(VERSIONS)]
        self.internet = Internet(seed)
        self.chance = self.internet.chance
        self.sites = [
            homes.site(self.internet, "a.example", "well-known"),
            homes.site(self.internet, "b.example", "srv"),
            homes.site(self.internet, "c.example"),
        ]
        names = ["alice", "bob", "carol"]
        self.people = [homes.person(site, name) for site, name in zip(self.sites, names, strict=True)]
        self.guests = [homes.person(site, "guest") for site in self.sites] if seed % 3 == 2 else []
        self.visitor: Person | None = None
        """The only one of a server that comes and goes with him."""
        if seed % 3 == 1:
            self.sites.append(homes.site(self.internet, "d.example"))
            self.visitor = homes.person(self.sites[-1], "dave")
        self.said: dict[str, str] = {}
        """Texts that a client was told are sent, with their event IDs."""
        self.redacted: set[str] = set()
        """Event IDs of messages that somebody tried to redact."""
        self.whispered: dict[str, str] = {}
        """Texts of messages to devices that a client was told are sent, with their receivers."""
        self.unsent = 0
        """Messages whose senders try again and again."""
        self.room = self.hall = ""

    def begin(self) -> None:
        alice, bob, carol = self.people
        wish: dict[str, Any] = {"preset": "public_chat", "room_version": self.version}
        users = {bob.user_id: 100, carol.user_id: 50} | ({} if self.version == "12" else {alice.user_id: 100})
        wish["power_level_content_override"] = {"users": users}
        self.room = alice.ask("POST", "/createRoom", wish)["room_id"]
        alice.say(self.room, "before anybody came")
        bob.ask("POST", f"/join/{quote(self.room)}?server_name=a.example", {})
        carol.ask("POST", f"/join/{quote(self.room)}?server_name=b.example", {})
        if self.guests:  # who is in the hall may enter the room while its join rule is "restricted"
            self.hall = alice.ask("POST", "/createRoom", {"preset": "public_chat", "room_version": self.version})["room_id"]
            for one in [bob, carol, *self.guests]:
                one.ask("POST", f"/join/{quote(self.hall)}?server_name=a.example", {})
        settle(self.internet, self.sites)

    # -- what people do

    def act(self) -> None:
        """Somebody does something, nobody waits for it."""
        who = self.chance.choice(self.people)
        verbs = [self.speak, self.whisper, self.murmur, self.decorate, self.redact, self.move, self.rule, self.empower]
        verb = self.chance.choices(verbs, [44, 8, 6, 20, 5, 10, 3, 4])[0]
        verb(who)

    def speak(self, who: Person) -> None:
        text = str(self.chance.random())
        path = f"/rooms/{quote(self.room)}/send/m.room.message/{who.new_transaction()}"
        told = self.said.__setitem__
        self.insist(who, path, {"msgtype": "m.text", "body": text}, lambda answer: told(text, answer["event_id"]))

    def whisper(self, who: Person) -> None:
        """A message to somebody's devices."""
        text, to = str(self.chance.random()), self.chance.choice(self.people).user_id
        body = {"messages": {to: {"*": {"text": text}}}}
        path = f"/sendToDevice/org.example.whisper/{who.new_transaction()}"
        self.insist(who, path, body, lambda _: self.whispered.__setitem__(text, to))

    def murmur(self, who: Person) -> None:
        """What nobody stores."""
        me = quote(who.user_id)
        self.ignore(who.begin("PUT", f"/rooms/{quote(self.room)}/typing/{me}", {"typing": True, "timeout": 20000}))
        self.ignore(who.begin("PUT", f"/presence/{me}/status", {"presence": "online", "status_msg": "about"}))
        if self.said:
            event_id = self.chance.choice(list(self.said.values()))
            self.ignore(who.begin("POST", f"/rooms/{quote(self.room)}/receipt/m.read/{quote(event_id)}", {}))

    def decorate(self, who: Person) -> None:
        key = self.chance.choice(["topic", "topic", "name"])
        self.put(who, f"m.room.{key}", {key: str(self.chance.random())})

    def redact(self, who: Person) -> None:
        if self.said:
            event_id = self.chance.choice(list(self.said.values()))
            self.redacted.add(event_id)
            path = f"/rooms/{quote(self.room)}/redact/{quote(event_id)}/{who.new_transaction()}"
            self.ignore(who.begin("PUT", path, {}))

    def rule(self, who: Person) -> None:
        """Who may come in. Version 7 brought knocking, 8 restricted rooms, 10 both in one."""
        number = int(self.version)
        rules = ["public", "public", "invite"] + ["knock"] * (number >= 7) + ["restricted"] * (number >= 8)
        rule = self.chance.choice(rules + ["knock_restricted"] * (number >= 10))
        allow = [{"type": "m.room_membership", "room_id": self.hall}] if self.hall else []
        self.put(who, "m.room.join_rules", {"join_rule": rule} | ({"allow": allow} if rule.endswith("restricted") else {}))

    def empower(self, who: Person) -> None:
        alice, bob, carol = (one.user_id for one in self.people)
        users = {bob: self.chance.choice([100, 50]), carol: 50} | ({} if self.version == "12" else {alice: 100})
        self.put(who, "m.room.power_levels", {"users": users, "state_default": 50, "ban": 50})

    def move(self, who: Person) -> None:
        """Others come and go, are thrown out and let in again."""
        if not self.guests and self.visitor is None:
            other = f"@nobody{self.chance.randrange(3)}:{self.chance.choice(self.sites).name}"
            self.ignore(who.begin("POST", f"/rooms/{quote(self.room)}/ban", {"user_id": other}))
            return
        guest = self.visitor or self.chance.choice(self.guests)
        verb = self.chance.choice(["join", "join", "leave", "say", "say", "knock", "invite", "kick", "ban", "unban"])
        if verb == "say":
            path = f"/rooms/{quote(self.room)}/send/m.room.message/{guest.new_transaction()}"
            self.ignore(guest.begin("PUT", path, {"msgtype": "m.text", "body": GUEST_TEXT}))
        elif verb in ("join", "knock"):
            via = self.chance.choice(self.people).site.name
            self.ignore(guest.begin("POST", f"/{verb}/{quote(self.room)}?server_name={via}&via={via}", {}))
        elif verb == "leave":
            self.ignore(guest.begin("POST", f"/rooms/{quote(self.room)}/leave", {}))
        else:
            self.ignore(who.begin("POST", f"/rooms/{quote(self.room)}/{verb}", {"user_id": guest.user_id}))

    def insist(self, who: Person, path: str, body: dict[str, Any], told: Callable[[Any], None]) -> None:
        """As clients do it: again and again under one transaction id until it is sent."""
        self.unsent += 1

        def sent(answer: Any) -> None:
            told(answer)
            self.unsent -= 1

        def send() -> None:
            who.begin("PUT", path, body).addCallbacks(sent, again)

        def again(failure: Any) -> None:
            failure.trap(HttpFailure)
            self.internet.clock.callLater(5.0, send)

        send()

    def put(self, who: Person, type_: str, content: dict[str, Any]) -> None:
        self.ignore(who.begin("PUT", f"/rooms/{quote(self.room)}/state/{type_}", content))

    def ignore(self, work: Any) -> None:
        work.addErrback(lambda failure: failure.trap(HttpFailure, Refused))

    # -- what fate does

    def fate(self) -> None:
        what = self.chance.random()
        site = self.chance.choice(self.sites)
        names = [one.name for one in self.sites]
        if what < 0.3:
            self.internet.cut = {frozenset(self.chance.sample(names, 2))}
        elif what < 0.5:
            self.internet.cut = set()
        elif what < 0.85:
            if site.up:
                site.kill() if what < 0.7 else site.stop()
                self.internet.clock.callLater(self.chance.expovariate(1 / 20), self.up, site)
        else:
            error = site.clock_error_ms + self.chance.choice([-30 * HOUR_MS, -HOUR_MS, -2_000, 2_000, HOUR_MS, 11 * HOUR_MS])
            # Events dated further ahead than the keys that signed them are valid are rightly refused, for good.
            site.clock_error_ms = min(max(error, -30 * HOUR_MS), 11 * HOUR_MS)

    def up(self, site: Site) -> None:
        if not site.up:
            site.start()

    def run(self) -> None:
        weather = self.internet.weather
        weather.loss, weather.duplicates, weather.delay = 0.1, 0.2, 3.0
        for _ in range(STEPS):
            self.act() if self.chance.random() < 0.85 else self.fate()
            end = self.internet.clock.seconds() + self.chance.expovariate(1 / 4)
            while self.internet.clock.calls and self.internet.clock.calls[0].getTime() <= end:
                self.internet.step()
        weather.loss = weather.duplicates = 0.0
        weather.delay = 0.1
        self.internet.cut = set()
        for site in self.sites:
            site.clock_error_ms = 0
            self.up(site)

    # -- what everybody sees

    def end(self) -> None:
        """Everybody agrees."""
        for _ in range(20):
            settle(self.internet, self.sites)
            if not self.unsent:
                break
            self.internet.clock.advance(1.0)
        assert not self.unsent, "everybody could say what they wanted to"
        if self.visitor is not None:
            self.let_in(self.visitor)
        for person in self.people:
            person.say(self.room, f"{person.name} says goodbye")
            settle(self.internet, self.sites)
        first, *others = self.sites
        for other in others:
            assert other.state_of(self.room) == first.state_of(self.room), f"states of {first.name} and {other.name}"
            assert other.heads(self.room) == first.heads(self.room), f"heads of {first.name} and {other.name}"
        everybody = [*self.people, *([self.visitor] if self.visitor is not None else [])]
        timelines = [self.timeline(person) for person in everybody]
        # What one server soft-failed it does not show, and others that had it before the change that forbids it do.
        disputed = {id_ for timeline in timelines for id_ in timeline if any(site.soft_failed(id_) for site in self.sites)}
        for person, timeline in zip(everybody, timelines, strict=True):
            agreed = timelines[0].keys() - disputed
            assert timeline.keys() - disputed == agreed, f"timelines of alice and {person.name}"
            texts = [text for text in timeline.values() if text not in (None, GUEST_TEXT)]
            assert len(texts) == len(set(texts)), "nothing is there twice"
            if not disputed:
                assert timeline == timelines[0], f"alice and {person.name} read the same"
        seen = {id_ for timeline in timelines for id_ in timeline}
        assert set(self.said.values()) <= seen, "nothing that was sent is lost"
        for text, id_ in self.said.items():
            if id_ not in self.redacted:
                assert timelines[0].get(id_, text) == text
        for person in self.people:
            expected = {text for text, to in self.whispered.items() if to == person.user_id}
            heard = [event["content"]["text"] for event in person.ask("GET", "/sync").get("to_device", {}).get("events", [])]
            assert len(heard) == len(set(heard)), "nothing was whispered twice"
            assert expected <= set(heard), "nothing that was whispered is lost"

    def let_in(self, visitor: Person) -> None:
        """Whatever has become of him, in the end he is in the room.

        He leaves first: who was banned by a server that had not heard of his join was never told, and thinks he is in.
        """
        alice, room = self.people[0], quote(self.room)
        self.ignore(visitor.begin("POST", f"/rooms/{room}/leave", {}))
        self.ignore(alice.begin("POST", f"/rooms/{room}/unban", {"user_id": visitor.user_id}))
        for _ in range(10):  # his server may remember that nobody answered, and wait
            settle(self.internet, self.sites)
            # What she says beside what he says may yield to an older rule of somebody with less power.
            alice.ask("PUT", f"/rooms/{room}/state/m.room.join_rules", {"join_rule": "public"})
            self.ignore(visitor.begin("POST", f"/join/{room}?server_name=a.example&via=a.example", {}))
            settle(self.internet, self.sites)
            if self.room in visitor.ask("GET", "/joined_rooms")["joined_rooms"]:
                break
            self.internet.clock.advance(1800.0)

    def timeline(self, person: Person) -> dict[str, str | None]:
        """Event ids, with the texts of messages."""
        events = person.history(self.room)
        timeline = {event["event_id"]: event["content"].get("body") for event in events}
        assert len(events) == len(timeline), "each event once"
        return timeline


def play(seed: int, homes: Homes) -> None:
    story = Story(seed, homes)
    print(f"seed {seed}, room version {story.version}")
    story.begin()
    story.run()
    story.end()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_j01_servers_agree_in_the_end(seed: int, homes: Homes) -> None:
    play(seed, homes)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(FIRST_NIGHTLY, FIRST_NIGHTLY + NIGHTLY))
def test_j01_servers_agree_in_the_end_nightly(seed: int, homes: Homes) -> None:
    play(seed, homes)
