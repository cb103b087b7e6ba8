"""Third-party invites between servers: ours that somebody redeems elsewhere, and those that our users redeem.

Server-Server API, "Third-party invites". An identity server tells the server of whoever has bound an address of the
invites that wait for it (``onbind``); that server has them exchanged for real ones by the inviter's server.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_id, is_valid_user_id, server_name_of
from federation.rules.membership_auth import keys_that_signed
from homeserver.rooms.append import append_event
from homeserver.rooms.at_once import some_at_once
from homeserver.rooms.membership import Membership
from homeserver.rooms.peers import Peers
from homeserver.rooms.resident import Resident
from homeserver.rooms.room import Rooms
from homeserver.rooms.servers import Servers
from homeserver.rooms.third_party import pending_invite, redeemed
from homeserver.rooms.turns import Turns

MAX_INVITES = 50
"""Pending invites of one address that are looked at; anybody may claim to be an identity server."""

_report = Logger()


class Exchange:
    """Turns third-party invites into invites; see `federation.inbound.ports.ExchangesInvites`."""

    def __init__(
        self,
        rooms: Rooms,
        servers: Servers,
        resident: Resident,
        membership: Membership,
        peers: Peers,
        key_is_valid: Callable[[str, str], Awaitable[bool]],
        user_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        """``key_is_valid`` asks an identity server, by its URL, whether it still stands by a key."""
        self._rooms = rooms
        self._servers = servers
        self._resident = resident
        self._membership = membership
        self._peers = peers
        self._key_is_valid = key_is_valid
        self._user_exists = user_exists
        self._turns = Turns()
        membership.check_proof = self.check_proof

    async def exchange(self, origin: str, room_id: str, pdu: Mapping[str, Any]) -> None:
        """Send the invite that a pending third-party invite of one of our users has become.

        The event is made anew from what was sent: only who is invited and the signed proof are taken from it. Raises
        MatrixError 400 for what is no such thing, 403 when it is not proven, 502 when that cannot be found out or the
        invited user's server does not take the invite.
        """
        room = self._resident.room_for(origin, room_id)
        content = pdu.get("content")
        invite = content.get("third_party_invite") if isinstance(content, dict) else None
        signed = invite.get("signed") if isinstance(invite, dict) else None
        target = pdu.get("state_key")
        if (
            not isinstance(target, str)
            or not is_valid_user_id(target)
            or not isinstance(content, dict)
            or content.get("membership") != "invite"
            or not isinstance(signed, dict)
        ):
            raise MatrixError(400, "M_INVALID_PARAM", "Not the exchange of a third-party invite")
        if pdu.get("room_id") != room_id or pdu.get("type") != "m.room.member":
            raise MatrixError(400, "M_INVALID_PARAM", "The event belongs elsewhere")
        pending = pending_invite(room, signed)
        if pdu.get("sender") != pending.sender or server_name_of(pending.sender) != self._rooms.server_name:
            raise MatrixError(403, "M_FORBIDDEN", "Nobody of this server gave that invitation")
        await self._redeem(room_id, pending, target, signed)

    async def bound(self, user_id: object, invites: object) -> None:
        """An identity server says that one of our users has bound an address, and which invites wait for it.

        Nobody has signed this: what the invites carry is proof, or is worth nothing. One that cannot be redeemed is
        passed over. MatrixError 400 for what has not the shape, or no user of ours.
        """
        if not isinstance(user_id, str) or not is_valid_user_id(user_id) or not isinstance(invites, list):
            raise MatrixError(400, "M_BAD_JSON", "mxid is a user ID and invites a list")
        if server_name_of(user_id) != self._rooms.server_name or not await self._user_exists(user_id):
            raise MatrixError(400, "M_INVALID_PARAM", "There is no such user here")
        usable = [one for one in invites[:MAX_INVITES] if _is_for(user_id, one)]
        # One at a time: each may send requests to servers that only the caller knows.
        await self._turns.take("", lambda: some_at_once(usable, lambda one: self._bound(user_id, one)))

    async def _bound(self, user_id: str, invite: Mapping[str, Any]) -> None:
        room_id, signed = invite["room_id"], invite["signed"]
        try:
            room = self._rooms.find(room_id)
            if room is not None and room.meta.last_seq and self._servers.is_in(self._rooms.server_name, room):
                await self._redeem(room_id, pending_invite(room, signed), user_id, signed)
                return
            event = {
                "type": "m.room.member",
                "room_id": room_id,
                "sender": invite["sender"],
                "state_key": user_id,
                "content": {"membership": "invite", "third_party_invite": {"display_name": "", "signed": signed}},
            }
            await self._peers.exchange_third_party_invite(server_name_of(invite["sender"]), room_id, event)
        except MatrixError as error:
            _report.info("{user}'s invite into {room} came to nothing: {why}", user=user_id, room=room_id, why=error.error)

    async def _redeem(self, room_id: str, pending: Event, user_id: str, signed: Mapping[str, Any]) -> None:
        """Check the proof and invite; who is in the room or invited already stays so."""
        await self.check_proof(pending, signed)
        room = self._rooms.get(room_id)
        if room.membership(user_id) in ("join", "invite"):
            return
        draft = redeemed(pending, user_id, signed)
        remote = self._membership.remote
        if remote is not None and server_name_of(user_id) != self._rooms.server_name:
            await remote.invite(room, draft.sender, user_id, draft.content)
        else:
            await append_event(self._rooms, room, draft)

    async def check_proof(self, pending: Event, signed: Mapping[str, Any]) -> None:
        """Whoever redeems asks whether the key is still good; other servers may not, so that all come to the same.

        Raises MatrixError 403 when it is not, or when nobody has signed, 502 when that cannot be found out.
        """
        problem = MatrixError(403, "M_FORBIDDEN", "The third-party invite is not signed with a key that is valid")
        for key in keys_that_signed(signed, pending.content):
            try:
                if key.validity_url is None or await self._key_is_valid(key.validity_url, key.text):
                    return
            except MatrixError as error:
                problem = error
        raise problem


def _is_for(user_id: str, invite: object) -> bool:
    """Whether an entry has what is needed, and was signed for this user."""
    if not isinstance(invite, dict):
        return False
    signed, room_id, sender = invite.get("signed"), invite.get("room_id"), invite.get("sender")
    return (
        isinstance(signed, dict)
        and signed.get("mxid") == user_id
        and isinstance(room_id, str)
        and is_valid_room_id(room_id)
        and isinstance(sender, str)
        and is_valid_user_id(sender)
    )
