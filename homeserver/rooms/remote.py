"""Our users in rooms that other servers hold: joining, leaving, declining, knocking. And inviting their users.

Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking", "Inviting to a room". A room is asked for at several
servers, one after the other, until one of them takes part.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from federation.outbound.calls import Calls, Template, refusal
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_alias, is_valid_room_id, is_valid_server_name, server_name_of
from federation.rules.room_versions import ROOM_VERSIONS, RoomVersion
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.rooms.checking import Checking
from homeserver.rooms.enter import Enter
from homeserver.rooms.outside import keep_outside
from homeserver.rooms.place import Verdict
from homeserver.rooms.policy import PolicyServers
from homeserver.rooms.receive import Receive
from homeserver.rooms.remote_template import event_from, version_of, vouching_server, with_signatures_of
from homeserver.rooms.room import MAX_DEPTH, Draft, Room, Rooms
from homeserver.rooms.servers import Servers
from storage.log import rooms as room_log
from storage.log.partial_joins import PartialJoin

MAX_CANDIDATES = 10
"""Servers that are asked for one room before giving up."""
MAX_SERVERS = 10_000
"""Servers of a room that are written down while its members are not known."""
MAX_STRIPPED = 100
MAX_STRIPPED_BYTES = 256 * 1024

INVITE_STATE = (
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.encryption",
)
"""What an invited user is shown of a room (Client-Server API, "Stripped state"), besides the inviter."""

T = TypeVar("T")

_log = Logger()


class Remote:
    """Membership over federation."""

    def __init__(
        self,
        rooms: Rooms,
        servers: Servers,
        checking: Checking,
        receive: Receive,
        enter: Enter,
        policies: PolicyServers,
        calls: Calls,
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._checking = checking
        self._receive = receive
        self._enter = enter
        self._policies = policies
        self._calls = calls
        self._joining: dict[str, tuple[DeferredLock, list[str]]] = {}

    # -- which servers to ask ----------------------------------------------------------------------------------------

    def takes_part(self, room_id: str) -> bool:
        """Whether this server has somebody in the room, so that it can decide itself."""
        room = self._rooms.find(room_id)
        return room is not None and bool(room.meta.last_seq) and self._servers.is_in(self._rooms.server_name, room)

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The room behind an alias of another server, and servers that are in it. MatrixError 404 if there is none."""
        if not is_valid_room_alias(alias):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a valid room alias")
        try:
            answer = await self._calls.directory(server_name_of(alias), alias)
        except RequestRefused as refused:
            if refused.status == 404:
                raise MatrixError(404, "M_NOT_FOUND", f"Room alias {alias} not found") from refused
            raise refusal(refused, "The alias's server could not tell") from refused
        except PeerUnreachable as problem:
            raise refusal(problem, "The alias's server could not be asked") from problem
        if not is_valid_room_id(answer.room_id):
            raise MatrixError(502, "M_UNKNOWN", "The alias's server answered with something else than a room")
        servers = [name for name in answer.servers if is_valid_server_name(name)]
        return answer.room_id, servers[:MAX_CANDIDATES]

    def candidates(self, user_id: str, room_id: str, via: Sequence[str]) -> list[str]:
        """Whom to ask about a room: the servers named, the inviter's, those in the room, that of its id."""
        names = list(via)
        record = room_log.membership_in(self._rooms.log, user_id, room_id)
        if record is not None and record.membership in ("invite", "knock"):
            names.append(server_name_of(record.sender))
        room = self._rooms.find(room_id)
        if room is not None:
            names += self._servers.to_ask(room)[:MAX_CANDIDATES]
        names.append(server_name_of(room_id))
        own = self._rooms.server_name
        return [name for name in dict.fromkeys(names) if name != own and is_valid_server_name(name)][:MAX_CANDIDATES]

    # -- joining -----------------------------------------------------------------------------------------------------

    async def join(self, user_id: str, room_id: str, via: Sequence[str], content: Mapping[str, Any]) -> None:
        """Join a room through another server. ``content`` is the member event's. Durable when it returns.

        Raises MatrixError with what the servers answered; 404 when nobody is left to be asked, 502 when none answers.
        """
        await self._alone(room_id, lambda: self._join(user_id, room_id, via, content))

    async def _join(self, user_id: str, room_id: str, via: Sequence[str], content: Mapping[str, Any]) -> None:
        room = self._rooms.find(room_id)
        if room is not None and self.takes_part(room_id) and room.membership(user_id) == "join":
            return
        servers = self.candidates(user_id, room_id, via)
        await self._first(servers, lambda server: self._join_through(server, user_id, room_id, content))

    async def _join_through(self, server: str, user_id: str, room_id: str, content: Mapping[str, Any]) -> None:
        template = await self._calls.make("join", server, room_id, user_id, list(ROOM_VERSIONS))
        version = self._version(room_id, template)
        event = event_from(self._rooms, template.event, version, room_id, user_id, content)
        # A room that was known before has a state from then, beside which the omitted members would look like leavers.
        known = self._rooms.find(room_id)
        omit = known is None or not known.meta.last_seq
        answer = await self._calls.send_join(server, room_id, event.event_id, event.pdu, omit_members=omit)
        if answer.members_omitted and not omit:
            raise MatrixError(502, "M_UNKNOWN", "The other server left members out that were asked for")
        voucher = vouching_server(event)
        if voucher is not None and voucher != self._rooms.server_name:
            event = with_signatures_of(event, answer.event, voucher)
        event = await self._checking.event(event.pdu, version, room_id)
        if self.takes_part(room_id):
            await self._into_known(server, room_id, event)
        else:
            partial = None
            if answer.members_omitted:
                told = [name for name in answer.servers_in_room or () if is_valid_server_name(name)]
                servers = [name for name in dict.fromkeys([server, *told]) if name != self._rooms.server_name]
                partial = PartialJoin(room_id, event.event_id, servers[:MAX_SERVERS])
            await self._enter.enter(version, event, answer.state, answer.auth_chain, partial)
        _log.info("{user} joined {room} through {server}", user=user_id, room=room_id, server=server)

    async def _into_known(self, server: str, room_id: str, event: Event) -> None:
        """A room that we are in already, where somebody else had to let our user in: one more event."""
        placed = await self._receive.in_turn(room_id, lambda: self._receive.checked(server, room_id, event))
        await placed.durable
        if placed.verdict not in (Verdict.ACCEPTED, Verdict.KNOWN):
            raise MatrixError(403, "M_FORBIDDEN", placed.why or "The room's rules refuse this join")

    def _version(self, room_id: str, template: Template) -> RoomVersion:
        version = version_of(template.room_version)
        room = self._rooms.find(room_id)
        if room is not None and room.version is not version:
            raise MatrixError(502, "M_UNKNOWN", "The other server takes the room for one of another version")
        return version

    async def _alone(self, room_id: str, work: Callable[[], Awaitable[T]]) -> T:
        """One entry into a room at a time: the second user of ours finds the room there."""
        lock, waiting = self._joining.setdefault(room_id, (DeferredLock(), []))
        waiting.append("")
        await lock.acquire()
        try:
            return await work()
        finally:
            waiting.pop()
            lock.release()
            if not waiting:
                self._joining.pop(room_id, None)

    # -- leaving and knocking ----------------------------------------------------------------------------------------

    async def leave(self, user_id: str, room_id: str, content: Mapping[str, Any]) -> None:
        """Decline an invite into a room that we are not in, or take a knock back.

        The user is rid of it even if no server answers: then only this server knows.
        """
        record = room_log.membership_in(self._rooms.log, user_id, room_id)
        if record is None or record.membership not in ("invite", "knock"):
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        try:
            servers = self.candidates(user_id, room_id, [server_name_of(record.sender)])
            event = await self._first(servers, lambda server: self._leave_through(server, user_id, room_id, content))
        except MatrixError as error:
            _log.info("{user} left {room}, but no server was told: {why}", user=user_id, room=room_id, why=error.error)
            event = self._leave_unheard(user_id, room_id, record.event_id, content)
        await keep_outside(self._rooms, event)

    async def _leave_through(self, server: str, user_id: str, room_id: str, content: Mapping[str, Any]) -> Event:
        template = await self._calls.make("leave", server, room_id, user_id)
        event = event_from(self._rooms, template.event, self._version(room_id, template), room_id, user_id, content)
        await self._calls.send_leave(server, room_id, event.event_id, event.pdu)
        return event

    def _leave_unheard(self, user_id: str, room_id: str, follows: str, content: Mapping[str, Any]) -> Event:
        """The leave event that no server took: it follows what it ends, which is all that is known of the room."""
        before = self._rooms.event(follows)
        references = [] if before is None else [before.reference()]
        return self._rooms.build(
            self._rooms.get(room_id).version,
            Draft(user_id, "m.room.member", content, state_key=user_id),
            room_id=room_id,
            depth=1 if before is None else min(MAX_DEPTH, before.depth + 1),
            prev_events=references,
            auth_events=references,
        )

    async def knock(self, user_id: str, room_id: str, via: Sequence[str], content: Mapping[str, Any]) -> None:
        """Knock on a room that we are not in. Raises MatrixError as `join` does."""
        servers = self.candidates(user_id, room_id, via)
        await self._first(servers, lambda server: self._knock_through(server, user_id, room_id, content))

    async def _knock_through(self, server: str, user_id: str, room_id: str, content: Mapping[str, Any]) -> None:
        versions = [version.id for version in ROOM_VERSIONS.values() if version.knock]
        template = await self._calls.make("knock", server, room_id, user_id, versions)
        event = event_from(self._rooms, template.event, self._version(room_id, template), room_id, user_id, content)
        answer = await self._calls.send_knock(server, room_id, event.event_id, event.pdu)
        await keep_outside(self._rooms, event, _stripped(answer.knock_room_state))

    # -- inviting ----------------------------------------------------------------------------------------------------

    async def invite(self, room: Room, sender: str, target: str, content: Mapping[str, Any]) -> str:
        """Invite a user of another server: that server signs the event before anybody else sees it. Returns its id.

        Raises MatrixError 403 when the rules or the other server refuse, 502 when it cannot be reached.
        """
        server = server_name_of(target)
        event = await self._policies.sign(room, room.decide(Draft(sender, "m.room.member", content, state_key=target)))
        state = self._invite_state(room, sender)
        try:
            answer = await self._calls.invite(
                server, room.room_id, event.event_id, event.pdu, room.version.id, state
            )
        except (PeerUnreachable, RequestRefused) as problem:
            raise refusal(problem, f"{server} did not take the invitation") from problem
        signed = await self._checking.signed_by(event, answer.event, server)
        # The room may have moved on while the other server was asked: the event takes its place beside what came.
        placed = await self._receive.in_turn(
            room.room_id, lambda: self._receive.checked(server, room.room_id, signed)
        )
        await placed.durable
        if placed.verdict not in (Verdict.ACCEPTED, Verdict.KNOWN):
            raise MatrixError(403, "M_FORBIDDEN", placed.why or "The room's rules refuse this invitation")
        return signed.event_id

    def _invite_state(self, room: Room, sender: str) -> list[dict[str, Any]]:
        found = [room.state(type_) for type_ in INVITE_STATE]
        found.append(room.state("m.room.member", sender))
        return [event.pdu for event in found if event is not None]

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _first(self, servers: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> T:
        """The answer of the first server that gives one; a refusal for good ends the search."""
        last: Exception | None = None
        for server in servers:
            try:
                return await ask(server)
            except RequestRefused as refused:
                if _final(refused):
                    raise refusal(refused, f"{server} refused") from refused
                last = refused
            except PeerUnreachable as problem:
                last = problem
            except MatrixError as error:
                if error.status < 500:
                    raise
                last = error
        if last is None:
            raise MatrixError(404, "M_NOT_FOUND", "No server is known that could be asked for this room")
        if isinstance(last, RequestRefused | PeerUnreachable):
            raise refusal(last, "No server could help")
        raise last


def _final(refused: RequestRefused) -> bool:
    """Whether other servers would say the same: the rules forbid it, or the version is not known here."""
    if refused.errcode in ("M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN", "M_NOT_FOUND", "M_UNRECOGNIZED"):
        return False
    return refused.status in (400, 403)


def _stripped(state: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """State from another server as a client may be shown it: only the fields of stripped state, only what has them."""
    kept: list[dict[str, Any]] = []
    size = 0
    for event in state[:MAX_STRIPPED]:
        fields = {key: event.get(key) for key in ("type", "state_key", "sender")}
        content = event.get("content")
        if not all(isinstance(value, str) for value in fields.values()) or not isinstance(content, dict):
            continue
        size += len(orjson.dumps(content))
        if size > MAX_STRIPPED_BYTES:
            break
        kept.append({**fields, "content": content})
    return kept
