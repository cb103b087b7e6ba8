"""Unread counts: a room grows, people read, and a recount from nothing always agrees."""

import random
from typing import Any

import orjson
import pytest
from twisted.internet.task import Clock

from federation.rules.errors import MatrixError
from homeserver.client.notifications import Notifications
from homeserver.push.notified import Notified
from homeserver.push.push_rules import PushRules
from homeserver.push.unread import Unread, UnreadCounts
from homeserver.web.call import Call, Requester
from storage.log.events import SPANS, NewEvent, put_event
from storage.log.receipts import Receipt, put_receipt
from storage.log.rooms import MembershipRecord, RoomMeta, put_membership, put_room
from storage.memory import MemoryStore, open_memory_log

ROOM, ME, BOB = "!r:here", "@me:here", "@bob:here"


class Levels:
    def user(self, user_id: str) -> int:
        return 50 if user_id == BOB else 0

    def notification(self, key: str) -> int:
        return 50


class World:
    """A room in a log in memory; every write is durable at once."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log = open_memory_log(MemoryStore(self.clock), self.clock)
        self.meta = RoomMeta(room_id=ROOM, nid=1, version="12", joined=3)
        self.seq = 0
        self.unread = self.counter()
        join = self.event(ME, {"membership": "join"}, "m.room.member", ME)
        self.member("join", join)

    def counter(self) -> Unread:
        return Unread(PushRules(self.log), lambda room_id: Levels())  # type: ignore[arg-type, return-value]

    def write(self, fill: Any) -> None:
        batch = self.log.begin()
        fill(batch)
        self.log.append(batch)
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def member(self, membership: str, event_id: str) -> None:
        record = MembershipRecord(ROOM, membership, self.seq, event_id, ME)
        self.write(lambda batch: (put_room(batch, self.meta), put_membership(batch, ME, record)))

    def event(
        self, sender: str, content: Any, type_: str = "m.room.message", state_key: str | None = None, flags: int = 0
    ) -> str:
        self.seq += 1
        fields = {"content": content, "sender": sender, "state_key": state_key, "type": type_}
        pdu, spans = b"{", {}
        for name, value in fields.items():
            if value is not None:
                text = orjson.dumps(value)
                pdu += b'"%s":' % name.encode()
                spans[name] = (len(pdu), len(pdu) + len(text))
                pdu += text + b","
        new = NewEvent(
            event_id=f"${self.seq}", room_id=ROOM, pdu=pdu[:-1] + b"}", flags=flags, sender=sender, depth=1,
            spans=tuple(spans.get(name, (0, 0)) for name in SPANS), origin_server_ts=0,
        )  # fmt: skip
        self.meta.last_seq = self.seq
        self.write(lambda batch: (put_event(batch, 1, self.seq, new), put_room(batch, self.meta)))
        return f"${self.seq}"

    def message(self, sender: str = BOB, **content: Any) -> str:
        return self.event(sender, {"msgtype": "m.text", "body": "hi"} | content)

    def reply(self, root: str, **content: Any) -> str:
        return self.message(**{"m.relates_to": {"rel_type": "m.thread", "event_id": root}}, **content)

    def read(self, seq: int, thread: str = "", type_: str = "m.read", user_id: str = ME) -> None:
        receipt = Receipt(ROOM, user_id, type_, thread, f"${seq}", seq, 0)
        self.write(lambda batch: put_receipt(batch, receipt, type_ == "m.read.private"))

    def count(self, counter: Unread | None = None, upto: int | None = None) -> UnreadCounts:
        with self.log.snapshot() as snapshot:
            return (counter or self.unread).counts(snapshot, ME, ROOM, self.seq if upto is None else upto)


MENTION = {"m.mentions": {"user_ids": [ME]}}


def test_messages_of_others_count_until_they_are_read() -> None:
    world = World()
    assert world.count() == (0, 0, {})
    world.message()
    world.message(**MENTION)
    world.message(ME)
    world.message(msgtype="m.notice")
    world.message(**{"m.mentions": {"room": True}})
    world.message("@weak:here", **{"m.mentions": {"room": True}})
    assert world.count() == (4, 2, {})
    assert world.count(upto=2) == (1, 0, {})
    world.read(3)
    assert world.count() == (2, 1, {})
    world.read(6, type_="m.read.private")
    assert world.count() == (1, 0, {})
    world.read(2)  # behind the private one
    world.read(99, type_="m.fully_read")
    world.read(99, user_id=BOB)
    assert world.count() == (1, 0, {})


def test_threads_have_their_own_counts_and_receipts() -> None:
    world = World()
    root = world.message()
    world.reply(root)
    inner = world.reply(root, **MENTION)
    world.message(**{"m.relates_to": {"m.in_reply_to": {"event_id": root}}})
    # By way of what it relates to.
    world.message(**{"m.relates_to": {"rel_type": "m.reference", "event_id": inner}})
    assert world.count() == (2, 0, {root: (3, 1)})
    world.read(world.seq, "main")
    assert world.count() == (0, 0, {root: (3, 1)})
    world.read(4, root)
    assert world.count() == (0, 0, {root: (1, 0)})
    world.message()
    world.read(world.seq)
    assert world.count() == (0, 0, {}) == world.count(world.counter())


def test_rejected_and_soft_failed_events_do_not_count() -> None:
    world = World()
    for flags in 1, 2, 8:
        world.event(BOB, {"body": "x"}, flags=flags)
    assert world.count() == (0, 0, {})


def test_who_left_has_nothing_unread_and_begins_anew_after_coming_back() -> None:
    world = World()
    world.message()
    assert world.count().notifications == 1
    world.member("leave", world.event(ME, {"membership": "leave"}, "m.room.member", ME))
    assert world.count() == (0, 0, {})
    world.message()
    world.member("join", world.event(ME, {"membership": "join"}, "m.room.member", ME))
    world.message()
    assert world.count() == (1, 0, {}) == world.count(world.counter())


def test_coming_back_unnoticed() -> None:
    world = World()
    world.message()
    world.count()
    world.member("leave", world.event(ME, {"membership": "leave"}, "m.room.member", ME))
    world.message()
    world.member("join", world.event(ME, {"membership": "join"}, "m.room.member", ME))
    assert world.count() == (0, 0, {})


def test_counting_step_by_step_agrees_with_counting_from_nothing() -> None:
    for seed in range(20):
        chance, world = random.Random(seed), World()
        roots = [world.message()]
        for _ in range(40):
            action = chance.random()
            if action < 0.3:
                roots.append(world.message(chance.choice([ME, BOB]), **chance.choice([{}, MENTION])))
            elif action < 0.6:
                world.reply(chance.choice(roots))
            elif action < 0.8:
                # The writer of receipts lets none go backwards.
                world.read(world.seq, chance.choice(["", "main", *roots]))
            else:
                world.count()
        assert world.count() == world.count(world.counter()), seed


def test_notifications_are_listed_newest_first_in_pages() -> None:
    world = World()
    for n in range(5):
        world.message(**(MENTION if n == 1 else {}))
        world.message(ME)
    world.read(5)

    class Rooms:
        def joined_rooms(self, user_id: str) -> dict[str, None]:
            return {ROOM: None}

    def get(query: str) -> tuple[list[tuple[str, bool]], str | None]:
        call = Call("GET", "/x?" + query, {})
        call.sender = Requester(ME)
        answer = orjson.loads(orjson.dumps(api.get(call)))
        return [(one["event"]["event_id"], one["read"]) for one in answer["notifications"]], answer.get("next_token")

    api = Notifications(world.log, Notified(Rooms(), world.unread))
    everything = [("$10", False), ("$8", False), ("$6", False), ("$4", True), ("$2", True)]
    assert get("") == (everything, None)
    found, token = get("limit=3")
    assert found == everything[:3]
    assert get(f"from={token}") == (everything[3:], None)
    assert get("only=highlight") == ([("$4", True)], None)
    with pytest.raises(MatrixError):
        get("from=-1")
