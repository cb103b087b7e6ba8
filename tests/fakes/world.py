"""Rooms and syncs in one process without sockets: the real engine over the log in memory, on a clock of its own."""

import json
from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.task import Clock

from federation.rules.power_levels import PowerLevels
from federation.rules.signing import SigningKey
from homeserver.feed import Feed
from homeserver.keys.key_counts import KeyCounts
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.push.push_rules import PushRules
from homeserver.push.unread import Unread
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import Create, InitialState, Wish
from homeserver.rooms.membership import Membership
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.room import Rooms
from homeserver.rooms.send import Send
from homeserver.rooms.sight import Sights
from homeserver.sync import tokens
from homeserver.sync.assembly import assemble_sync
from homeserver.sync.filters import parse_filter
from homeserver.sync.longpoll import acknowledge
from homeserver.sync.scope import SyncRequest
from homeserver.web.call import Call, Requester
from storage.log import inbox
from storage.log.account_data import put_datum
from storage.memory import MemoryStore, open_memory_log

T = TypeVar("T")
SERVER = "x"


class NoKeys:
    """Every device has no keys."""

    def cached(self, user_id: str, device_id: str) -> KeyCounts | None:
        return KeyCounts({"signed_curve25519": 0}, [])

    async def get(self, user_id: str, device_id: str) -> KeyCounts:
        return KeyCounts({"signed_curve25519": 0}, [])


class Names:
    """Display names are the user ids' local parts."""

    async def member_content(self, user_id: str) -> dict[str, Any]:
        return {"displayname": user_id[1:].partition(":")[0]}


class World:
    """A server's rooms and syncs. Users are written as ``a`` for ``@a:x``, their device is ``DEVICE_a``."""

    def __init__(self, store: MemoryStore | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        if clock is None:
            self.clock.advance(1_700_000_000)
        self.store = store or MemoryStore(self.clock)
        self.log = open_memory_log(self.store, self.clock, "e1")
        self.sights = Sights()
        self.memberships = Memberships(self.log)
        self.feed = Feed(self.clock, self.memberships, self.log.position)
        self.feed.follow(self.memberships.follow)
        self.log.on_release = self.feed.release
        self.rooms = Rooms(self.log, SERVER, SigningKey.from_seed(b"s" * 32, SERVER, "ed25519:a"), self.now_ms)
        self.aliases = Aliases(self.log)
        self.create_rooms = Create(self.rooms, self.aliases)
        self.membership = Membership(self.rooms, self.aliases, Names())
        self.sending = Send(self.rooms, self.aliases)
        self.push_rules = PushRules(self.log)
        self.unread = Unread(self.push_rules, self._power_levels)
        self.sync = assemble_sync(
            log=self.log,
            feed=self.feed,
            memberships=self.memberships,
            sights=self.sights,
            key_counts=NoKeys(),
            device_lists=DeviceListChanges(self.memberships, self.feed),
            unread=self.unread,
            push_rules=self.push_rules,
            clock=self.clock,
            now_ms=self.now_ms,
        )

    def restart(self) -> "World":
        """The server as it is after a crash, on the same store."""
        return World(self.store, self.clock)

    def _power_levels(self, room_id: str) -> PowerLevels:
        return self.rooms.get(room_id).power_levels

    wall_error_ms = 0

    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000) + self.wall_error_ms

    def run(self, work: Awaitable[T]) -> T:
        """Let the clock's due calls happen until the work is done."""
        done: Deferred[T] = work if isinstance(work, Deferred) else ensureDeferred(work)  # type: ignore[arg-type]
        results: list[Any] = []
        done.addBoth(results.append)
        for _ in range(1000):
            if results:
                break
            self.clock.advance(0)
        if not results:
            raise AssertionError("the work does not end by itself")
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def who(self, user: str) -> Requester:
        return Requester(user_id(user), f"DEVICE_{user}", token_id=f"token_{user}")

    # -- what people do

    def room(self, creator: str, *members: str, preset: str = "public_chat", **state: Any) -> str:
        """A room; further state as ``type=content`` with ``_`` for ``.``, e.g. ``m_room_name={"name": "x"}``."""
        initial = [InitialState(type_.replace("_", ".", 2), "", content) for type_, content in state.items()]
        wish = Wish(user_id(creator), "10", preset=preset, initial_state=initial)
        room_id = self.run(self.create_rooms.create(wish))
        for member in members:
            self.join(member, room_id)
        return room_id

    def join(self, user: str, room_id: str) -> None:
        self.run(self.membership.join(self.who(user), room_id, {}, None))

    def leave(self, user: str, room_id: str) -> None:
        self.run(self.membership.leave(self.who(user), room_id, None))

    def invite(self, user: str, room_id: str, target: str) -> None:
        self.run(self.membership.invite(self.who(user), room_id, user_id(target), None))

    def ban(self, user: str, room_id: str, target: str) -> None:
        self.run(self.membership.ban(self.who(user), room_id, user_id(target), None))

    def kick(self, user: str, room_id: str, target: str) -> None:
        self.run(self.membership.kick(self.who(user), room_id, user_id(target), None))

    def say(self, user: str, room_id: str, body: str = "hello", txn_id: str | None = None, **content: Any) -> str:
        message = {"msgtype": "m.text", "body": body, **content}
        return self.run(self.sending.message(self.who(user), room_id, "m.room.message", message, txn_id))

    def state(self, user: str, room_id: str, type_: str, content: dict[str, Any], key: str = "") -> str:
        return self.run(self.sending.state(self.who(user), room_id, type_, key, content))

    def redact(self, user: str, room_id: str, event_id: str) -> str:
        return self.run(self.sending.redact(self.who(user), room_id, event_id, None, None))

    def read(self, user: str, room_id: str, event_id: str, type_: str = "m.read", thread: str = "") -> None:
        self.run(self.sync.receipts.read_up_to(user_id(user), room_id, {type_: event_id}, thread))

    def set_data(self, user: str, type_: str, content: dict[str, Any], room_id: str = "") -> None:
        batch = self.log.begin()
        put_datum(batch, user_id(user), room_id, type_, json.dumps(content).encode())
        self.run(self.log.append(batch))

    def send_to_device(self, user: str, *messages: dict[str, Any]) -> None:
        batch = self.log.begin()
        for message in messages:
            inbox.put_message(batch, user_id(user), f"DEVICE_{user}", json.dumps(message).encode())
        self.run(self.log.append(batch))

    # -- syncs

    def request(self, user: str, since: str | None, **options: Any) -> SyncRequest:
        wanted = parse_filter(options.pop("filter", {}))
        position = tokens.since(since, self.log.epoch, self.log.position)
        return SyncRequest(user_id(user), f"DEVICE_{user}", position, wanted, now_ms=self.now_ms(), **options)

    def synced(self, user: str, since: str | None = None, **options: Any) -> dict[str, Any]:
        """The decoded answer of a sync that does not wait."""
        request = self.request(user, since, **options)
        acknowledge(self.log, request)
        body: dict[str, Any] = json.loads(self.run(self.sync.reader.read(request)).body.dump())
        return body

    def poll(self, user: str, since: str | None, timeout_ms: int = 30_000, **options: Any) -> "Polling":
        """A long poll that is under way."""
        return Polling(self, user, self.request(user, since, **options), timeout_ms)


class Polling:
    """A long poll; ``body`` once answered, ``error`` once refused."""

    def __init__(self, world: World, user: str, request: SyncRequest, timeout_ms: int) -> None:
        self.body: dict[str, Any] | None = None
        self.error: Any = None
        self.call = Call("GET", "/_matrix/client/v3/sync", {})
        self.call.sender = world.who(user)
        work = maybeDeferred(world.sync.longpoll.answer, request, timeout_ms, self.call)
        work.addCallbacks(self._answered, self._refused)
        for _ in range(20):
            world.clock.advance(0)

    def _answered(self, body: Any) -> None:
        self.body = json.loads(body.dump())

    def _refused(self, failure: Any) -> None:
        self.error = failure.value


def user_id(user: str) -> str:
    return f"@{user}:{SERVER}"


def bodies(events: Sequence[dict[str, Any]]) -> list[str]:
    """The texts of the messages among events."""
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
