"""A server with queues towards peers that answer as a test says, on one clock, over the log in memory."""

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from federation.outbound.queue import Outbound
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.typing import Typing
from homeserver.rooms.hosts import Hosts
from homeserver.rooms.room import Draft
from storage.log.append import Kind
from tests.fakes.world import SERVER, World, user_id


class Peers:
    """Takes transactions. ``dead`` servers do not answer, ``poison`` is refused whenever it stands in a transaction."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[tuple[float, str, str]] = []
        self.dead: set[str] = set()
        self.broken: set[str] = set()
        self.poison: str | None = None
        self.hold: dict[str, Deferred[None]] = {}
        self.now = lambda: 0.0

    async def send_transaction(self, server: str, txn_id: str, body: bytes) -> Mapping[str, Any]:
        self.asked.append((self.now(), server, txn_id))
        if server in self.hold:
            await self.hold[server]
        if server in self.dead:
            raise PeerUnreachable(server, "connection refused")
        if server in self.broken:
            raise RequestRefused(server, 500, "M_UNKNOWN", "broken")
        if self.poison is not None and self.poison.encode() in body:
            raise RequestRefused(server, 400, "M_BAD_JSON", "I cannot read this")
        self.taken.append((server, json.loads(body)))
        return {"pdus": {}}

    def pdus(self, server: str) -> list[dict[str, Any]]:
        return [pdu for to, body in self.taken if to == server for pdu in body["pdus"]]

    def texts(self, server: str) -> list[str]:
        return [pdu["content"]["body"] for pdu in self.pdus(server) if pdu["type"] == "m.room.message"]

    def edus(self, server: str, type_: str) -> list[dict[str, Any]]:
        edus = [edu for to, body in self.taken if to == server for edu in body["edus"]]
        return [edu["content"] for edu in edus if edu["edu_type"] == type_]


class Devices:
    """Every change of devices is told as one EDU."""

    async def updates(self, user: str, device_id: str) -> list[tuple[str, dict[str, Any]]]:
        return [("m.device_list_update", {"user_id": user, "device_id": device_id or "ANY"})]


class Sending(World):
    """A world whose rooms other servers are in."""

    peers: Peers
    outbound: Outbound

    def begin(self, peers: Peers | None = None, dice: float = 0.5) -> "Sending":
        self.peers = peers or Peers()
        self.peers.now = self.clock.seconds
        self.hosts = Hosts(SERVER, self.memberships)
        self.feed.follow(self.hosts.follow)
        self.typing = Typing(self.clock, lambda room: self.log.append_ephemeral(Kind.TYPING, room_id=room))
        self.presence = Presence(self.clock, lambda user: self.log.append_ephemeral(Kind.PRESENCE, user_id=user))
        self.outbound = Outbound(
            server_name=SERVER,
            log=self.log,
            sender=self.peers,
            hosts=self.hosts,
            devices=Devices(),
            clock=self.clock,
            now_ms=self.now_ms,
            dice=lambda: dice,
            typing=self.typing,
            presence=self.presence,
        )
        self.feed.follow(self.outbound.follow)
        self.outbound.start()
        self.settle()
        return self

    def again(self, graceful: bool = True, dice: float = 0.5, wall_error_ms: int = 0) -> "Sending":
        """The server after a restart, its peers unchanged."""
        if graceful:
            self.outbound.stop()
        self.settle()
        self.outbound._stopped = True
        after = Sending(self.store, self.clock)
        after.wall_error_ms = wall_error_ms
        return after.begin(self.peers, dice)

    def settle(self, seconds: float = 0) -> None:
        """Let what is due happen, then pass some time in small steps."""
        for _ in range(30):
            self.clock.advance(0)
        while seconds > 0:
            step = min(1.0, seconds)
            self.clock.advance(step)
            seconds -= step
            for _ in range(8):
                self.clock.advance(0)

    def comes(self, remote: str, room_id: str, membership: str = "join") -> None:
        """A user of another server changes their membership in a room of ours."""
        self.member(remote, remote, room_id, membership)

    def member(self, sender: str, target: str, room_id: str, membership: str) -> None:
        room = self.rooms.get(room_id)
        draft = Draft(sender, "m.room.member", {"membership": membership}, state_key=target)
        batch = self.log.begin()
        room.stage(batch, room.decide(draft))
        self.run(self.log.append(batch))
        self.settle()

    def shared(self, *servers: str) -> str:
        """A room of ours with somebody of each of these servers."""
        room_id = self.room("a")
        for server in servers:
            self.comes(f"@r:{server}", room_id)
        self.settle()
        return room_id


__all__ = ["Devices", "Peers", "Sending", "user_id"]
