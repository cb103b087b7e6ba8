"""A server that has rooms and nothing else: the engine and all its endpoints behind a router without sockets.

Access tokens are the users' local parts; a name that begins with ``guest`` is a guest's, ``admin`` is the admin's.
"""

from typing import Any
from urllib.parse import quote

import orjson
from twisted.internet.task import Clock

from federation.rules.errors import MatrixError
from homeserver.client.banning import Banning
from homeserver.client.create_room import CreateRoom
from homeserver.client.directory import Directory
from homeserver.client.event_context import EventContext
from homeserver.client.inviting import Inviting
from homeserver.client.joining import Joining
from homeserver.client.kicking import Kicking
from homeserver.client.knocking import Knocking
from homeserver.client.leaving import Leaving
from homeserver.client.list_joined_rooms import ListJoinedRooms
from homeserver.client.list_public_rooms import ListPublicRooms
from homeserver.client.message_pagination import MessagePagination
from homeserver.client.mutual_rooms import MutualRooms
from homeserver.client.old_sync import OldSync
from homeserver.client.open_polls import OpenPolls
from homeserver.client.peeking_events import PeekingEvents
from homeserver.client.redaction import Redaction
from homeserver.client.room_event_by_timestamp import RoomEventByTimestamp
from homeserver.client.room_initial_sync import RoomInitialSync
from homeserver.client.room_send import RoomSend
from homeserver.client.room_state import RoomState
from homeserver.client.room_summary import RoomSummary
from homeserver.client.room_upgrades import RoomUpgrades
from homeserver.client.rooms import RoomsReading
from homeserver.rooms.departures import Departures
from homeserver.rooms.findable import FindableUsers
from homeserver.rooms.overview import Overviews
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.read import Reading
from homeserver.rooms.upgrade import Upgrade
from homeserver.rooms.watch import RoomWatch
from homeserver.sync.room_info import RoomInfos
from homeserver.web.call import Call, Requester
from homeserver.web.limits import Limits
from homeserver.web.router import Router
from storage.memory import MemoryStore
from tests.fakes.web import Client
from tests.fakes.world import Names, World, user_id

V3 = "/_matrix/client/v3"
V1 = "/_matrix/client/v1"


class Tokens:
    """Everybody's token is their local part."""

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester:
        name = token.partition("/")[0]
        if not name.isalnum():
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown token")
        device = token.partition("/")[2] or f"DEVICE_{name}"
        return Requester(user_id(name), device, name.startswith("guest"), f"token_{token}", None, name == "admin")

    authenticate_even_locked = authenticate


class RoomServer(World):
    """Calls are made by local part: ``server.post("alice", "/createRoom", {...})`` gives status and body."""

    def __init__(self, store: MemoryStore | None = None, clock: Clock | None = None, version: str = "10") -> None:
        super().__init__(store, clock)
        names, clock = Names(), self.clock
        self.version = version
        self.pauses = 0
        """How often a reader of a state let others have their turn."""
        self.reading = Reading(self.log, self.sights, self.now_ms)
        self.overviews = Overviews()
        self.feed.follow(self.overviews.follow)
        self.watch = RoomWatch(clock)
        self.feed.follow(self.watch.follow)
        self.polls = OpenPolls()
        self.departures = Departures(self.rooms, clock.callLater)
        self.findable = FindableUsers(self.log, self.memberships, self.overviews)
        infos = RoomInfos(self.reading, self.aliases, self.memberships, self.sync.presence)
        peeking = PeekingEvents(self.reading, self.watch, self.polls, clock)
        public = PublicRooms(self.log, self.aliases, self.overviews)
        endpoints: list[Any] = [
            CreateRoom(self.create_rooms, self.membership, names, "x", version, clock),
            *(kind(self.membership) for kind in (Joining, Inviting, Leaving, Kicking, Banning, Knocking)),
            ListJoinedRooms(self.memberships),
            RoomSend(self.sending),
            Redaction(self.sending),
            RoomState(self.sending, self.membership),
            RoomUpgrades(Upgrade(self.rooms, self.aliases, self.create_rooms, names)),
            Directory(self.rooms, self.aliases),
            ListPublicRooms(self.rooms, self.aliases, public),
            RoomSummary(self.log, self.membership, self.overviews),
            MutualRooms(self.memberships, batch=2),
            RoomsReading(self.reading, self._pause),
            *(kind(self.reading) for kind in (MessagePagination, EventContext, RoomEventByTimestamp)),
            RoomInitialSync(self.log, infos),
            OldSync(self.reading, self.memberships, infos, peeking, self.feed, self.polls, clock),
        ]
        routes = [route for endpoint in endpoints for route in endpoint.routes()]
        self.router = Router(routes, Tokens(), Limits({}, clock.seconds))
        self.client = Client(self.router)

    async def _pause(self) -> None:
        self.pauses += 1

    def restart(self) -> "RoomServer":
        """The server as it is after a crash, on the same store."""
        return RoomServer(self.store, self.clock, self.version)

    # -- calls

    def call(self, who: str | None, method: str, path: str, body: object = b"", **query: Any) -> tuple[int, Any]:
        """Status and body of an answer; ``path`` is below the client API's v3 unless it begins with ``/_matrix``."""
        path = path if path.startswith("/_matrix") else V3 + path
        return self.run(self.client.request(method, path, body, token=who, query=query))

    def get(self, who: str | None, path: str, **query: Any) -> tuple[int, Any]:
        return self.call(who, "GET", path, **query)

    def post(self, who: str | None, path: str, body: object = b"") -> tuple[int, Any]:
        return self.call(who, "POST", path, body)

    def put(self, who: str | None, path: str, body: object = b"") -> tuple[int, Any]:
        return self.call(who, "PUT", path, body)

    def ok(self, who: str, method: str, path: str, body: object = b"", **query: Any) -> Any:
        """The body of an answer that has to be 200."""
        status, answer = self.call(who, method, path, body, **query)
        assert status == 200, (path, status, answer)
        return answer

    def pending(self, who: str, path: str) -> "Pending":
        """A call that may wait."""
        return Pending(self, self.client.call("GET", V3 + path, token=who))

    def pending_put(self, who: str, path: str, body: object) -> "Pending":
        """A call whose answer is not waited for; the whole path."""
        return Pending(self, self.client.call("PUT", path, body, token=who), settled=False)

    def pending_post(self, who: str, path: str, body: object, *, settled: bool = False) -> "Pending":
        """A call whose answer is not waited for."""
        return Pending(self, self.client.call("POST", V3 + path, body, token=who), settled)

    # -- what people do

    def create(self, who: str, **wish: Any) -> str:
        room_id: str = self.ok(who, "POST", "/createRoom", wish)["room_id"]
        return room_id

    def contents(self, who: str, room_id: str, type_: str, key: str = "") -> Any:
        """Content of a piece of state."""
        return self.ok(who, "GET", f"/rooms/{room_id}/state/{type_}/{quote(key)}")

    def log_of(self, room_id: str) -> list[tuple[str, str, str | None]]:
        """Sender, type and state key of everything in a room, oldest first."""
        from storage.log.events import room_slice

        meta = self.rooms.get(room_id).meta
        with self.log.snapshot() as snapshot:
            records = room_slice(snapshot, meta.nid, meta.first_seq, meta.last_seq + 1)
            return [(record.sender[1:].partition(":")[0], record.type, record.state_key) for record in records]


class Pending:
    """A call under way; ``result`` is status and body once it is answered."""

    def __init__(self, server: RoomServer, call: Call, settled: bool = True) -> None:
        from twisted.internet.defer import ensureDeferred

        self.call = call
        self.result: tuple[int, Any] | None = None
        self._server = server
        ensureDeferred(server.router.handle(call)).addCallback(self._answered)
        if settled:
            self.settle()

    def _answered(self, answer: Any) -> None:
        self.result = (answer.status, orjson.loads(answer.encoded()))

    def settle(self, seconds: float = 0) -> tuple[int, Any] | None:
        """Let time pass and what is due happen."""
        self._server.clock.advance(seconds)
        for _ in range(20):
            self._server.clock.advance(0)
        return self.result
