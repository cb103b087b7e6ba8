"""The resident server's part when somebody of another server joins, leaves or knocks: a template, then the signed event.

Server-Server API, "Joining Rooms", "Leaving Rooms", "Knocking". The template is what one of our own events would be, without
hash and signature; the event that comes back is checked like any other and, once it is in, sent on to the other servers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from federation.rules.auth import check_auth
from federation.rules.auth_events import CREATE, auth_types_for
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.hashes import encode_base64
from federation.rules.ids import is_valid_user_id, server_name_of
from federation.rules.signing import SigningKey, with_signature
from homeserver.rooms.checking import Checking, as_refusal
from homeserver.rooms.membership import Membership
from homeserver.rooms.place import Verdict
from homeserver.rooms.receive import Receive
from homeserver.rooms.room import MAX_DEPTH, MAX_PREV_EVENTS, Room, Rooms
from homeserver.rooms.servers import Servers
from homeserver.rooms.state_at import States
from storage.log import events as event_log


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that was let in: its stored record, and the room as it was before it."""

    room: Room
    event: Event
    record: event_log.EventRecord


class Resident:
    """Lets users of other servers in and out of the rooms that this server is in."""

    def __init__(
        self,
        rooms: Rooms,
        servers: Servers,
        states: States,
        checking: Checking,
        receive: Receive,
        membership: Membership,
        signing_key: SigningKey,
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._states = states
        self._checking = checking
        self._receive = receive
        self._membership = membership
        self._key = signing_key

    # -- templates ---------------------------------------------------------------------------------------------------

    def template(
        self, origin: str, room_id: str, user_id: str, membership: str, versions: Sequence[str] | None
    ) -> dict[str, Any]:
        """The answer of make_join, make_leave and make_knock: ``event`` and ``room_version``.

        ``versions`` are those that the asking server knows, None when it need not know any (leaving). Raises MatrixError
        403 when the rules would not let it in, 404 for a room that this server is not in, 400
        M_INCOMPATIBLE_ROOM_VERSION, M_UNABLE_TO_AUTHORISE_JOIN, M_UNABLE_TO_GRANT_JOIN.
        """
        if not is_valid_user_id(user_id) or server_name_of(user_id) != origin:
            raise MatrixError(403, "M_FORBIDDEN", "The user is not of the asking server")
        room = self.room_for(origin, room_id)
        if versions is not None and room.version.id not in versions:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                "The asking server does not know this room version",
                room_version=room.version.id,
            )
        if membership == "knock" and not room.version.knock:
            raise MatrixError(403, "M_FORBIDDEN", "This room version does not know knocking")
        content: dict[str, Any] = {"membership": membership}
        if membership == "join":
            voucher = self._membership.voucher(room, user_id)
            if voucher is not None:
                content["join_authorised_via_users_server"] = voucher
        return {"event": self._template(room, user_id, content), "room_version": room.version.id}

    def room_for(self, origin: str, room_id: str) -> Room:
        """A room that this server is in, for a server that its access list lets in. MatrixError 404, 403."""
        room = self._rooms.find(room_id)
        if room is None or not room.meta.last_seq or not self._servers.is_in(self._rooms.server_name, room):
            raise MatrixError(404, "M_NOT_FOUND", "This server is not in that room")
        if not self._servers.allowed(origin, room):
            raise MatrixError(403, "M_FORBIDDEN", "The room does not let this server take part")
        if room.meta.partial_state:
            raise MatrixError(404, "M_NOT_FOUND", "This server does not know the whole of that room yet")
        if not room.meta.federated:
            raise MatrixError(403, "M_FORBIDDEN", "The room does not federate")
        return room

    def _template(self, room: Room, user_id: str, content: dict[str, Any]) -> dict[str, Any]:
        keys = auth_types_for("m.room.member", user_id, user_id, content, room.version)
        auth_events = {key: event for key in keys if (event := room.state(*key)) is not None}
        heads = room.meta.extremities[:MAX_PREV_EVENTS]
        template: dict[str, Any] = {
            "type": "m.room.member",
            "room_id": room.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": content,
            "depth": min(MAX_DEPTH, 1 + max((depth for _, depth in room.meta.extremities), default=0)),
            "prev_events": [room.reference(event_id) for event_id, _ in heads],
            "auth_events": [event.reference() for event in auth_events.values()],
            "origin": self._rooms.server_name,
            "origin_server_ts": self._rooms.now_ms(),
        }
        # Judged with a hash and signatures that only have the right shape: they are the other server's to make.
        shaped = {**template, "hashes": {"sha256": ""}, "signatures": {}}
        if not room.version.hashed_event_ids:
            shaped["event_id"] = f"$template:{self._rooms.server_name}"
        create = room.state("m.room.create")
        if create is not None:
            auth_events[CREATE] = create
        check_auth(Event.from_pdu(shaped, room.version), auth_events, room.power_levels)
        return template

    # -- the signed event --------------------------------------------------------------------------------------------

    async def accept(self, origin: str, room_id: str, event_id: str, pdu: Any, membership: str) -> Accepted:
        """Take the signed event of send_join, send_leave or send_knock in and mark it to be sent on.

        Raises MatrixError 400 M_INVALID_PARAM for an event that is not the one expected here, 403 when it is refused.
        """
        room = self.room_for(origin, room_id)
        event = await self._checked(origin, room, pdu, membership)
        if room.version.hashed_event_ids is False and event.event_id != event_id:
            raise MatrixError(400, "M_INVALID_PARAM", "The event has another id than the request")
        placed = await self._receive.in_turn(
            room_id, lambda: self._receive.checked(origin, room_id, event, relayed=True)
        )
        await placed.durable
        if placed.verdict is Verdict.REJECTED or placed.verdict is Verdict.SOFT_FAILED:
            raise MatrixError(403, "M_FORBIDDEN", placed.why or "The room's rules refuse this event")
        record = event_log.event_by_id(self._rooms.log, event.event_id)
        assert record is not None, "an accepted event is stored"
        return Accepted(self._rooms.get(room_id), event, record)

    async def _checked(self, origin: str, room: Room, pdu: Any, membership: str) -> Event:
        try:
            event = Event.from_pdu(pdu, room.version)
            expected = (
                event.room_id == room.room_id
                and event.type == "m.room.member"
                and event.content.get("membership") == membership
                and event.state_key == event.sender
            )
            if expected and server_name_of(event.sender) != origin:
                raise MatrixError(403, "M_FORBIDDEN", "The event is not of a user of the server that sends it")
            if not expected:
                raise MatrixError(400, "M_INVALID_PARAM", f"Not an event by which a user of that server does {membership}")
            if membership == "join":
                pdu = self._vouched(room, event)
            return await self._checking.event(pdu, room.version, room.room_id)
        except MatrixError as error:
            raise as_refusal(error) from None

    def _vouched(self, room: Room, event: Event) -> dict[str, Any]:
        """A restricted join through one of our users needs our signature as well (Server-Server API, "Restricted rooms")."""
        voucher = event.content.get("join_authorised_via_users_server")
        if (
            not room.version.restricted_join
            or not isinstance(voucher, str)
            or server_name_of(voucher) != self._rooms.server_name
        ):
            return event.pdu
        expected = self._membership.voucher(room, event.sender)
        if expected is None and room.join_rule() in ("restricted", "knock_restricted"):
            expected = voucher  # invited meanwhile: the rules do not look at the voucher
        if expected is None:
            return event.pdu
        signature = encode_base64(self._key.sign(event.signed_bytes))
        return with_signature(event.pdu, self._rooms.server_name, self._key.key_id, signature)

    def sign(self, event: Event) -> dict[str, Any]:
        """An event's PDU with our signature beside those that it has."""
        signature = encode_base64(self._key.sign(event.signed_bytes))
        return with_signature(event.pdu, self._rooms.server_name, self._key.key_id, signature)
