"""Scenes between whole homeservers as text: one line is something that somebody does, or something that has to be so.

People are written ``alice@north``; what is in quotes is said. After each line everything that is on its way arrives, except
while the servers are apart. The lines that there are stand in `LINES`; anything else in a scene is an error.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.homeservers import Homes, Person, Refused, Site, settle
from tests.fakes.internet import Internet

PERSON = r"(\w+@\w+)"
ROOM = r"(\w+)"
TEXT = r'"([^"]*)"'
WAYS = ("well-known", "srv", "port")
APART_SECONDS = 3.0
"""How long a line takes while the servers are apart."""
TYPING_MS = 30_000


class Scene:
    """A scene that is played. ``version`` is that of its rooms."""

    def __init__(self, homes: Homes, version: str) -> None:
        self._homes = homes
        self._version = version
        self._internet = Internet(1)
        self._sites: dict[str, Site] = {}
        self._people: dict[str, Person] = {}
        self._rooms: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def play(self, text: str) -> None:
        """Line by line. AssertionError names the line that is not so."""
        for number, whole in enumerate(text.splitlines(), 1):
            line = whole.partition("#")[0].strip()
            if line and not line.startswith("versions "):
                try:
                    self._line(line)
                except (AssertionError, Refused, pytest.fail.Exception) as problem:
                    raise AssertionError(f"line {number}: {line}\n{problem}") from problem

    def _line(self, line: str) -> None:
        refused = line.startswith("refused: ")
        wanted = line.removeprefix("refused: ")
        for pattern, act in LINES:
            found = re.fullmatch(pattern, wanted)
            if found is None:
                continue
            if refused:
                with pytest.raises(Refused):
                    act(self, *found.groups())
            else:
                act(self, *found.groups())
            self._pass_time()
            return
        raise AssertionError("no such line")

    def _pass_time(self) -> None:
        if self._internet.cut or not all(site.up for site in self._sites.values()):
            end = self._internet.clock.seconds() + APART_SECONDS
            while self._internet.clock.seconds() < end:
                self._internet.step()
        else:
            settle(self._internet, self._sites.values())

    # -- who and where -----------------------------------------------------------------------------------------------

    def servers(self, names: str) -> None:
        for name, way in zip(names.split(), WAYS, strict=False):
            self._sites[name] = self._homes.site(self._internet, f"{name}.example", way)

    def _who(self, person: str) -> Person:
        if person not in self._people:
            name, _, server = person.partition("@")
            self._people[person] = self._homes.person(self._sites[server], name)
        return self._people[person]

    def _ask(self, person: str, method: str, path: str, body: Any = None) -> Any:
        return self._who(person).ask(method, path, body)

    def _room_path(self, room: str) -> str:
        return f"/rooms/{quote(self._rooms[room])}"

    # -- what people do ----------------------------------------------------------------------------------------------

    def creates(self, person: str, kind: str | None, room: str, club: str | None) -> None:
        wish: dict[str, Any] = {"preset": "public_chat", "room_version": self._version}
        rules: dict[str, Any] = {"join_rule": kind}
        if kind == "private":
            wish["preset"] = "private_chat"
        elif kind is not None:
            if club is not None:
                rules["allow"] = [{"type": "m.room_membership", "room_id": self._rooms[club]}]
            wish["initial_state"] = [{"type": "m.room.join_rules", "state_key": "", "content": rules}]
        self._rooms[room] = self._ask(person, "POST", "/createRoom", wish)["room_id"]

    def joins(self, person: str, room: str, via: str | None) -> None:
        self._enter("join", person, room, via)

    def knocks(self, person: str, room: str, via: str | None) -> None:
        self._enter("knock", person, room, via)

    def _enter(self, how: str, person: str, room: str, via: str | None) -> None:
        servers = "" if via is None else f"?server_name={via}.example"
        self._ask(person, "POST", f"/{how}/{quote(self._rooms[room])}{servers}", {})

    def leaves(self, person: str, room: str) -> None:
        self._ask(person, "POST", f"{self._room_path(room)}/leave", {})

    def changes_membership(self, person: str, verb: str, target: str, room: str) -> None:
        action = {"invites": "invite", "kicks": "kick", "bans": "ban", "unbans": "unban"}[verb]
        self._ask(person, "POST", f"{self._room_path(room)}/{action}", {"user_id": self._who(target).user_id})

    def says(self, person: str, text: str, room: str) -> None:
        self._said[text] = self._who(person).say(self._rooms[room], text)

    def redacts(self, person: str, text: str, room: str) -> None:
        path = f"{self._room_path(room)}/redact/{quote(self._said[text])}/{self._who(person).new_transaction()}"
        self._ask(person, "PUT", path, {})

    def sets_topic(self, person: str, room: str, text: str) -> None:
        self._ask(person, "PUT", f"{self._room_path(room)}/state/m.room.topic/", {"topic": text})

    def trusts(self, person: str, target: str, room: str) -> None:
        path = f"{self._room_path(room)}/state/m.room.power_levels/"
        levels = self._ask(person, "GET", path)
        users = {**levels.get("users", {}), self._who(target).user_id: 50}
        self._ask(person, "PUT", path, {**levels, "users": users})

    def upgrades(self, person: str, room: str, new: str) -> None:
        made = self._ask(person, "POST", f"{self._room_path(room)}/upgrade", {"new_version": self._version})
        self._rooms[new] = made["replacement_room"]

    def types(self, person: str, how: str, room: str) -> None:
        path = f"{self._room_path(room)}/typing/{quote(self._who(person).user_id)}"
        self._ask(person, "PUT", path, {"typing": how == "types", "timeout": TYPING_MS})

    def reads(self, person: str, text: str, room: str) -> None:
        self._ask(person, "POST", f"{self._room_path(room)}/receipt/m.read/{quote(self._said[text])}", {})

    def whispers(self, person: str, text: str, target: str) -> None:
        messages = {self._who(target).user_id: {"*": {"body": text}}}
        path = f"/sendToDevice/org.example.whisper/{self._who(person).new_transaction()}"
        self._ask(person, "PUT", path, {"messages": messages})

    # -- what happens to servers -------------------------------------------------------------------------------------

    def apart(self, one: str, other: str) -> None:
        self._internet.cut.add(frozenset((f"{one}.example", f"{other}.example")))

    def together(self) -> None:
        self._internet.cut.clear()

    def runs(self, server: str, how: str) -> None:
        site = self._sites[server]
        {"is killed": site.kill, "stops": site.stop, "starts": site.start}[how]()

    # -- what has to be so -------------------------------------------------------------------------------------------

    def sees(self, who: str, room: str, texts: str, order: str | None) -> None:
        wanted = re.findall(TEXT, texts)
        for person in self._people if who == "everybody" else [who]:
            found = self._who(person).texts(self._rooms[room])
            assert (sorted(found) == sorted(wanted)) if order else (found == wanted), f"{person} sees {found}"

    def is_(self, person: str, membership: str, room: str, server: str) -> None:
        found = self._sites[server].services.rooms.get(self._rooms[room]).membership(self._who(person).user_id)
        assert (found or "nothing") == membership, f"{server} takes {person} for {found}"

    def topic_is(self, room: str, text: str, server: str) -> None:
        found = self._sites[server].services.rooms.get(self._rooms[room]).content("m.room.topic").get("topic")
        assert found == text, f"on {server} it is {found!r}"

    def agree(self, room: str) -> None:
        first, *others = [site for site in self._sites.values() if site.services.rooms.find(self._rooms[room]) is not None]
        assert others, "only one server is in the room"
        for other in others:
            assert first.state_of(self._rooms[room]) == other.state_of(self._rooms[room]), f"{first.name} and {other.name}: state"
            assert first.heads(self._rooms[room]) == other.heads(self._rooms[room]), f"{first.name} and {other.name}: heads"

    def moved(self, person: str, room: str, new: str) -> None:
        tombstone = self._ask(person, "GET", f"{self._room_path(room)}/state/m.room.tombstone/")
        assert tombstone["replacement_room"] == self._rooms[new], tombstone

    def sees_typing(self, person: str, target: str, room: str) -> None:
        typing = [event["content"]["user_ids"] for event in self._ephemeral(person, room) if event["type"] == "m.typing"]
        wanted = [] if target == "nobody" else [self._who(target).user_id]
        assert (typing[0] if typing else []) == wanted, typing

    def sees_receipt(self, person: str, target: str, text: str, room: str) -> None:
        receipts = [event["content"] for event in self._ephemeral(person, room) if event["type"] == "m.receipt"]
        readers = [reader for content in receipts for reader in content.get(self._said[text], {}).get("m.read", {})]
        assert self._who(target).user_id in readers, receipts

    def _ephemeral(self, person: str, room: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self._sync(person)["rooms"]["join"][self._rooms[room]]["ephemeral"]["events"]
        return events

    def hears(self, person: str, text: str, sender: str) -> None:
        events = self._sync(person).get("to_device", {}).get("events", [])
        found = [(event["sender"], event["content"]["body"]) for event in events]
        assert found == [(self._who(sender).user_id, text)], found

    def _sync(self, person: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._ask(person, "GET", "/sync?timeout=0")
        return answer


LINES: list[tuple[str, Callable[..., None]]] = [
    (r"servers ([\w ]+)", Scene.servers),
    (rf"{PERSON} creates (?:the (private|knock|restricted|knock_restricted) )?{ROOM}(?: for members of {ROOM})?", Scene.creates),
    (rf"{PERSON} joins {ROOM}(?: via {ROOM})?", Scene.joins),
    (rf"{PERSON} knocks on {ROOM}(?: via {ROOM})?", Scene.knocks),
    (rf"{PERSON} leaves {ROOM}", Scene.leaves),
    (rf"{PERSON} (invites|kicks|bans|unbans) {PERSON} (?:to|from|in) {ROOM}", Scene.changes_membership),
    (rf"{PERSON} says {TEXT} in {ROOM}", Scene.says),
    (rf"{PERSON} redacts {TEXT} in {ROOM}", Scene.redacts),
    (rf"{PERSON} sets the topic of {ROOM} to {TEXT}", Scene.sets_topic),
    (rf"{PERSON} makes {PERSON} a moderator of {ROOM}", Scene.trusts),
    (rf"{PERSON} upgrades {ROOM} to {ROOM}", Scene.upgrades),
    (rf"{PERSON} (types|stops typing) in {ROOM}", Scene.types),
    (rf"{PERSON} has read {TEXT} in {ROOM}", Scene.reads),
    (rf"{PERSON} whispers {TEXT} to {PERSON}", Scene.whispers),
    (r"(\w+) and (\w+) are apart", Scene.apart),
    (r"all are together", Scene.together),
    (r"(\w+) (is killed|stops|starts)", Scene.runs),
    (rf"({PERSON[1:-1]}|everybody) sees in {ROOM}((?: {TEXT.replace('(', '(?:')})*)( in any order)?", Scene.sees),
    (rf"{PERSON} is (\w+) in {ROOM} on (\w+)", Scene.is_),
    (rf"the topic of {ROOM} is {TEXT} on (\w+)", Scene.topic_is),
    (rf"all agree on {ROOM}", Scene.agree),
    (rf"{PERSON} finds that {ROOM} has moved to {ROOM}", Scene.moved),
    (rf"{PERSON} sees ({PERSON[1:-1]}|nobody) type in {ROOM}", Scene.sees_typing),
    (rf"{PERSON} sees that {PERSON} has read {TEXT} in {ROOM}", Scene.sees_receipt),
    (rf"{PERSON} hears {TEXT} from {PERSON}", Scene.hears),
]
"""What may stand in a line. ``refused:`` before it says that the server refuses."""
