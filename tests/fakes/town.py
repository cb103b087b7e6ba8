"""Several servers in one process: the real room engine, endpoints and router of each, joined by a wire in memory.

One clock, one source of chance. Requests are signed and their signatures checked as on the real wire; what the wire does
to them (loss, delay, duplicates) is decided by a seeded ``Weather``.
"""

import random
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock, deferLater

from federation.outbound.calls import Calls
from federation.rules.checks import check_signatures
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import server_name_of
from federation.rules.signing import KeyUnavailable, SignatureError, SigningKey, signature_is_valid, verify_signatures
from federation.wire import xmatrix
from federation.wire.errors import PeerUnreachable, RequestRefused
from federation.wire.request_auth import SignedRequest
from homeserver.feed import Feed
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import Create, InitialState, Wish
from homeserver.rooms.federated import FederatedRooms
from homeserver.rooms.guests import GuestsLeaving
from homeserver.rooms.membership import Membership
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.overview import Overviews
from homeserver.rooms.peer_edus import PeerEdus
from homeserver.rooms.peer_users import PeerDirectory
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.remote import Remote
from homeserver.rooms.remote_peers import RemotePeers
from homeserver.rooms.room import Draft, Rooms
from homeserver.rooms.send import Send
from homeserver.web.call import Call, Requester
from homeserver.web.limits import Limits
from homeserver.web.peer_routes import peer_routes
from homeserver.web.router import Router
from storage.log import events as event_log
from storage.log.append import Kind
from storage.memory import MemoryStore, open_memory_log
from tests.fakes.weather import Weather

T = TypeVar("T")


class Town:
    """All servers, their clock and their wire."""

    def __init__(self, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.weather = Weather(self.chance)
        self.servers: dict[str, Twin] = {}
        self.keys: dict[str, SigningKey] = {}
        self.cut: set[frozenset[str]] = set()
        self.requests: list[tuple[str, str, str, str]] = []
        """(origin, destination, method, path) of every request that was made."""
        self.revoked_keys: set[str] = set()
        self.keyless: set[str] = set()
        """Servers whose keys nobody can have for the moment."""
        self.key_questions: list[tuple[str, str]] = []

    def key_of(self, name: str) -> SigningKey:
        if name not in self.keys:
            self.keys[name] = SigningKey.from_seed(name.encode().ljust(32, b"-")[:32], name)
        return self.keys[name]

    def server(self, name: str, store: MemoryStore | None = None) -> "Twin":
        self.servers[name] = Twin(self, name, store)
        return self.servers[name]

    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    async def key_is_valid(self, url: str, key: str) -> bool:
        """What identity servers say of their keys."""
        self.key_questions.append((url, key))
        return key not in self.revoked_keys

    def run(self, work: Any, seconds: float = 600.0) -> Any:
        """Let time pass until the work is done."""
        done: Deferred[Any] = work if isinstance(work, Deferred) else ensureDeferred(work)
        results: list[Any] = []
        done.addBoth(results.append)
        end = self.clock.seconds() + seconds
        while not results and self.clock.seconds() < end:
            self._step()
        if not results:
            raise AssertionError("the work does not end")
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def _step(self) -> None:
        calls = self.clock.getDelayedCalls()
        next_ = min((call.getTime() for call in calls), default=self.clock.seconds() + 1.0)
        self.clock.advance(max(0.0, next_ - self.clock.seconds()))

    def settle(self, seconds: float = 120.0) -> None:
        """Let time pass until nobody has anything to send any more."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self._step()
            idle = not any(twin.outbox.busy for twin in self.servers.values())
            if idle and not any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
                return
        raise AssertionError("the town does not come to rest")

    async def carry(
        self,
        origin: str,
        destination: str,
        method: str,
        uri: str,
        content: Any,
        key: SigningKey,
        decode: Callable[[bytes], Any] = orjson.loads,
    ) -> Any:
        """One request over the wire."""
        self.requests.append((origin, destination, method, uri.partition("?")[0]))
        await deferLater(self.clock, self.weather.wait())  # type: ignore[arg-type]
        twin = self.servers.get(destination)
        if twin is None or frozenset((origin, destination)) in self.cut or self.weather.lost():
            raise PeerUnreachable(destination, "no answer")
        header = xmatrix.build(key, method, uri, origin, destination, content)
        body = b"" if content is None else orjson.dumps(content)
        calls = [Call(method, uri, {"authorization": header}, body, "192.0.2.7")]
        if self.weather.doubled():
            calls.append(Call(method, uri, {"authorization": header}, body, "192.0.2.7"))
        answers = [twin.router.start(call) for call in calls]
        answer: Any = None
        for pending in answers:
            answer = await pending if isinstance(pending, Deferred) else pending
        if self.weather.lost():
            raise PeerUnreachable(destination, "the answer got lost")
        if answer.status != 200:
            value = orjson.loads(answer.encoded())
            raise RequestRefused(destination, answer.status, value.get("errcode", "M_UNKNOWN"), value.get("error", ""))
        return decode(answer.encoded())


class WireClient:
    """The signed client of one server."""

    def __init__(self, town: Town, name: str) -> None:
        self._town = town
        self._name = name

    async def request(
        self,
        destination: str,
        method: str,
        uri: str,
        content: Any = None,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109
        max_bytes: int = 0,
        ignore_back_off: bool = False,
        decode: Callable[[bytes], Any] = orjson.loads,
    ) -> Any:
        if hasattr(content, "__bytes__") or type(content).__name__ == "Raw":
            content = orjson.loads(bytes(content))
        else:
            content = None if content is None else orjson.loads(orjson.dumps(content))
        key = self._town.key_of(self._name)
        asking = self._town.servers.get(self._name)
        try:
            return await self._town.carry(self._name, destination, method, uri, content, key, decode)
        finally:
            if self._town.servers.get(self._name) is not asking:
                await Deferred()  # it was killed meanwhile


class TownKeys:
    """Everybody's public key, and who signed a request."""

    def __init__(self, town: Town, name: str) -> None:
        self._town = town
        self._name = name

    def _of(self, server: str) -> dict[str, Any]:
        key = self._town.keys.get(server)
        return {} if key is None else {key.key_id: key.verify_key}

    async def verify_event_signatures(self, event: Event) -> None:
        signatures = event.pdu.get("signatures")
        servers = signatures if isinstance(signatures, dict) else {}
        if not self._town.keyless.isdisjoint(servers):
            raise KeyUnavailable("no answer, and no key")
        check_signatures(event, {server: self._of(server) for server in servers})

    async def verify_signature_of(self, event: Event, server_name: str) -> None:
        verify_signatures(event.signed_bytes, event.pdu.get("signatures"), server_name, self._of(server_name))

    async def check_events(self, events: list[Event]) -> list[SignatureError | None]:
        problems: list[SignatureError | None] = []
        for event in events:
            try:
                await self.verify_event_signatures(event)
                problems.append(None)
            except SignatureError as problem:
                problems.append(problem)
        return problems

    async def authenticate(self, method: str, uri: str, headers: Any, body: bytes) -> SignedRequest:
        try:
            found = xmatrix.parse(headers.get("authorization", ""))[0]
        except ValueError:
            raise MatrixError(401, "M_UNAUTHORIZED", "Not signed") from None
        content = orjson.loads(body) if body else None
        message = xmatrix.bytes_to_sign(xmatrix.request_object(method, uri, found.origin, self._name, content))
        key = self._of(found.origin).get(found.key_id)
        if found.destination != self._name or key is None or not signature_is_valid(message, found.signature, key):
            raise MatrixError(401, "M_UNAUTHORIZED", "Wrongly signed")
        return SignedRequest(found.origin, content)


class Outbox:
    """Sends a server's events on: per destination in order, again and again until they are through.

    The smallest thing that does what the real queue does; scenes and simulations of the receiving side stand on it.
    """

    RETRY = 5.0

    def __init__(self, twin: "Twin") -> None:
        self._twin = twin
        self._waiting: dict[str, list[bytes]] = {}
        self._running: set[str] = set()
        self._count = 0

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def follow(self, entries: Any) -> None:
        for entry in entries:
            if entry.kind != Kind.EVENT or entry.note is None:
                continue
            record = entry.note.record
            own = server_name_of(record.sender) == self._twin.name
            if not own and not record.flags & event_log.RELAYED:
                continue
            room = self._twin.rooms.find(entry.room_id)
            assert room is not None
            servers = set(self._twin.federated.servers.to_ask(room))
            if record.type == "m.room.member" and record.state_key:
                servers.add(server_name_of(record.state_key))
            if not own and record.state_key and server_name_of(record.state_key) != self._twin.name:
                servers.discard(server_name_of(record.sender))
            for server in servers - {self._twin.name}:
                self.queue(server, bytes(record.pdu))

    def queue(self, server: str, pdu: bytes) -> None:
        self._waiting.setdefault(server, []).append(pdu)
        if server not in self._running:
            self._running.add(server)
            ensureDeferred(self._send(server))

    async def _send(self, server: str) -> None:
        while self._waiting.get(server):
            pdus = self._waiting[server][:50]
            self._count += 1
            txn = f"{self._twin.incarnation}-{self._count}"
            body = {
                "origin": self._twin.name,
                "origin_server_ts": self._twin.town.now_ms(),
                "pdus": [orjson.loads(pdu) for pdu in pdus],
            }
            while True:
                try:
                    await self._twin.client.request(server, "PUT", f"/_matrix/federation/v1/send/{txn}", body)
                    break
                except PeerUnreachable:
                    await deferLater(self._twin.town.clock, self.RETRY)  # type: ignore[arg-type]
                if self._twin.stopped:
                    return
            del self._waiting[server][: len(pdus)]
        self._running.discard(server)


class Nobody:
    """Profiles of people who have none; everybody exists."""

    async def member_content(self, user_id: str) -> dict[str, Any]:
        return {}

    async def profile(self, user_id: str) -> dict[str, Any]:
        if "nobody" in user_id:
            raise MatrixError(404, "M_NOT_FOUND", "No such user")
        return {"displayname": user_id[1:].partition(":")[0]}

    async def exists(self, user_id: str) -> bool:
        return "nobody" not in user_id

    async def devices(self, user_id: str) -> dict[str, Any]:
        return {"user_id": user_id, "stream_id": 0, "devices": []}

    async def query_keys(self, devices: dict[str, list[str]]) -> dict[str, Any]:
        return {"device_keys": {user_id: {} for user_id in devices}, "failures": {}}

    async def claim_keys(self, wanted: dict[str, dict[str, str]]) -> dict[str, Any]:
        return {"one_time_keys": {}}

    async def openid_user(self, token: str) -> str | None:
        return "@alice:a" if token == "good" else None


class Twin:
    """One server of the town. Users are given by local part."""

    def __init__(self, town: Town, name: str, store: MemoryStore | None = None) -> None:
        self.town = town
        self.name = name
        self.stopped = False
        self.store = store or MemoryStore(town.clock)
        self.log = open_memory_log(self.store, town.clock, "e1")
        self.incarnation = f"t{self.log.position}"
        self.memberships = Memberships(self.log)
        self.feed = Feed(town.clock, self.memberships, self.log.position)
        self.feed.follow(self.memberships.follow)
        self.log.on_release = self.feed.release
        key = town.key_of(name)
        self.rooms = Rooms(self.log, name, key, town.now_ms)
        self.aliases = Aliases(self.log)
        self.create_rooms = Create(self.rooms, self.aliases)
        self.membership = Membership(self.rooms, self.aliases, Nobody())
        self.sending = Send(self.rooms, self.aliases)
        self.keys = TownKeys(town, name)
        self.client = WireClient(town, name)
        self.calls = Calls(self.client, 1 << 20)  # type: ignore[arg-type]
        users = Nobody()
        self.federated = FederatedRooms(
            self.rooms, self.membership, key, self.keys, RemotePeers(self.calls), town.clock, users.exists, town.key_is_valid
        )
        federated = self.federated
        self.remote = Remote(
            self.rooms,
            federated.servers,
            federated.checking,
            federated.receive,
            federated.enter,
            federated.policies,
            self.calls,
        )
        self.typed: list[tuple[str, str]] = []
        self.edus = PeerEdus(
            name, self.log, self.rooms, federated.servers, town.now_ms, typing=self  # type: ignore[arg-type]
        )
        overviews = Overviews()
        directory = PeerDirectory(
            self.rooms, self.aliases, PublicRooms(self.log, self.aliases, overviews), federated.servers
        )
        operations = federated.operations(self.edus, users, directory)
        self.routes = peer_routes(operations, self.keys)  # type: ignore[arg-type]
        self.router = Router(self.routes, None, Limits({}, town.clock.seconds))  # type: ignore[arg-type]
        self.outbox = Outbox(self)
        self.feed.follow(self.outbox.follow)
        self.feed.follow(GuestsLeaving(self.rooms, town.clock.callLater).follow)

    def start(self, room_id: str, user_id: str, timeout_ms: int = 0) -> None:
        """Somebody types, for the typing list."""
        self.typed.append((room_id, user_id))

    def stop(self, room_id: str, user_id: str) -> None:
        """Somebody stopped typing."""

    def restart(self) -> "Twin":
        """The server as it is after a crash, on the same store."""
        self.stopped = True
        return self.town.server(self.name, self.store)

    def user(self, name: str) -> str:
        return f"@{name}:{self.name}"

    def who(self, name: str) -> Requester:
        return Requester(self.user(name), f"DEV{name}", token_id=name)

    def run(self, work: Any) -> Any:
        return self.town.run(work)

    # -- what people do

    def create(self, name: str, version: str = "10", preset: str = "public_chat", **state: Any) -> str:
        initial = [InitialState(type_.replace("_", ".", 2), "", content) for type_, content in state.items()]
        room_id: str = self.run(
            self.create_rooms.create(Wish(self.user(name), version, preset=preset, initial_state=initial))
        )
        return room_id

    def join(self, name: str, room_id: str, via: "Twin | None" = None) -> None:
        """Join, through another server where this one is not in the room."""
        if via is None or self.remote.takes_part(room_id):
            self.run(self.membership.join(self.who(name), room_id, {}, None))
        else:
            self.run(self.remote.join(self.user(name), room_id, [via.name], {"membership": "join"}))

    def say(self, name: str, room_id: str, body: str) -> str:
        event_id: str = self.run(
            self.sending.message(self.who(name), room_id, "m.room.message", {"msgtype": "m.text", "body": body}, None)
        )
        return event_id

    def state(self, name: str, room_id: str, type_: str, content: dict[str, Any], key: str = "") -> str:
        event_id: str = self.run(self.sending.state(self.who(name), room_id, type_, key, content))
        return event_id

    def draft(self, name: str, room_id: str, type_: str, content: dict[str, Any], state_key: str | None = None) -> Event:
        """An event of a user, made but not put anywhere."""
        return self.rooms.get(room_id).decide(Draft(self.user(name), type_, content, state_key=state_key))

    # -- what one sees

    def heads(self, room_id: str) -> set[str]:
        return {event_id for event_id, _ in self.rooms.get(room_id).meta.extremities}

    def state_of(self, room_id: str) -> dict[tuple[str, str], str]:
        room = self.rooms.get(room_id)
        return dict(room.state_map.items(room.meta.state_root))

    def bodies(self, room_id: str) -> list[str]:
        """Texts of the messages that clients see, in the room's order."""
        found = []
        meta = self.rooms.get(room_id).meta
        with self.log.snapshot() as view:
            for record in event_log.room_slice(view, meta.nid, meta.first_seq, meta.last_seq + 1):
                if record.type == "m.room.message" and not record.soft_failed and not record.rejected:
                    found.append(orjson.loads(record.content_json).get("body", "(redacted)"))
        return found

    def knows(self, event_id: str) -> str:
        """What is stored of an event: ``unknown``, ``outlier``, ``rejected``, ``soft-failed`` or ``placed``."""
        record = event_log.event_by_id(self.log, event_id)
        if record is None:
            return "unknown"
        if record.rejected:
            return "rejected"
        if record.seq is None:
            return "outlier"
        return "soft-failed" if record.soft_failed else "placed"

    def member(self, user_id: str, room_id: str) -> str | None:
        return self.rooms.get(room_id).membership(user_id)

    def request(self, destination: "Twin", method: str, uri: str, content: Any = None) -> Any:
        """A signed request of this server."""
        return self.run(WireClient(self.town, self.name).request(destination.name, method, uri, content))

    def transaction(self, destination: "Twin", *pdus: Any, txn: str = "t", edus: list[Any] | None = None) -> Any:
        """Push events, which may be ``Event``s or objects."""
        plain = [pdu.pdu if isinstance(pdu, Event) else pdu for pdu in pdus]
        body: dict[str, Any] = {"origin": self.name, "origin_server_ts": self.town.now_ms(), "pdus": plain}
        if edus is not None:
            body["edus"] = edus
        return self.request(destination, "PUT", f"/_matrix/federation/v1/send/{txn}", body)


Make = Callable[[], Twin]
