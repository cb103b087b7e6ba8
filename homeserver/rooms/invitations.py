"""Invites of our users into rooms that this server is not in, and their end.

Server-Server API, "Inviting to a room". What comes is checked before it is signed, so that nobody gets our signature on
anything but an invite of one of our users.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from federation.rules.auth_events import CREATE
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_id, server_name_of
from federation.rules.room_versions import RoomVersion
from homeserver.rooms.checking import Checking, as_refusal
from homeserver.rooms.outside import keep_outside
from homeserver.rooms.peer_reading import known_version
from homeserver.rooms.resident import Resident
from homeserver.rooms.room import Rooms
from homeserver.rooms.servers import Servers
from storage.log import rooms as room_log

MAX_STATE = 50
"""State events of an invite that are looked at."""


class Invitations:
    """Takes invites from other servers; see `federation.inbound.ports.TakesInvites`."""

    def __init__(
        self,
        rooms: Rooms,
        servers: Servers,
        checking: Checking,
        resident: Resident,
        user_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._rooms = rooms
        self._servers = servers
        self._checking = checking
        self._resident = resident
        self._user_exists = user_exists

    async def invite(
        self, origin: str, room_id: str, event_id: str, pdu: Any, version_id: str, state: Sequence[Any]
    ) -> dict[str, Any]:
        """Check, sign and keep an invite. The answer is durable: the user will see it.

        Raises MatrixError 400 M_INVALID_PARAM for what is no invite of one of our users, 403 for who may not be
        invited, 400 M_INCOMPATIBLE_ROOM_VERSION.
        """
        version = known_version(version_id)
        self._rooms.check_open(room_id)
        event = await self._checked(origin, room_id, event_id, pdu, version)
        stripped = await self._stripped(version, room_id, state)
        target = str(event.state_key)
        if not await self._user_exists(target):
            raise MatrixError(403, "M_FORBIDDEN", "There is no such user here")
        signed = Event.from_pdu(self._resident.sign(event), version)
        room = self._rooms.find(room_id)
        if room is None or not room.meta.last_seq or not self._servers.is_in(self._rooms.server_name, room):
            self._rooms.check_open(room_id)  # a deletion may have begun meanwhile
            await keep_outside(self._rooms, signed, stripped)
        return {"event": orjson.Fragment(signed.json)}

    async def _checked(
        self, origin: str, room_id: str, event_id: str, pdu: Any, version: RoomVersion
    ) -> Event:
        try:
            event = Event.from_pdu(pdu, version)
            expected = (
                is_valid_room_id(room_id)
                and event.room_id == room_id
                and event.event_id == event_id
                and event.type == "m.room.member"
                and event.content.get("membership") == "invite"
                and server_name_of(event.sender) == origin
                and event.state_key is not None
                and server_name_of(event.state_key) == self._rooms.server_name
            )
            if not expected:
                raise MatrixError(400, "M_INVALID_PARAM", "Not an invite of a user of this server")
            checked = await self._checking.event(pdu, version, room_id)
        except MatrixError as error:
            raise as_refusal(error) from None
        if checked.json != event.json:
            raise MatrixError(400, "M_INVALID_PARAM", "The event does not fit its hash")
        return checked

    async def _stripped(self, version: RoomVersion, room_id: str, state: Sequence[Any]) -> list[dict[str, Any]]:
        """The stripped state to show. From room version 12 on it has to prove which room it is of."""
        strict = version.room_id_is_create_hash
        shown: list[dict[str, Any]] = []
        created = False
        for entry in state[:MAX_STATE]:
            if not strict:
                stripped = _stripped_event(entry)
                if stripped is not None:
                    shown.append(stripped)
                continue
            try:
                event = await self._checking.event(entry, version, room_id)
            except MatrixError as error:
                raise MatrixError(400, "M_INVALID_PARAM", f"invite_room_state: {error.error}") from None
            created = created or event.key == CREATE
            stripped = _stripped_event(event.pdu)
            if stripped is not None:
                shown.append(stripped)
        if strict and not created:
            raise MatrixError(400, "M_MISSING_PARAM", "invite_room_state lacks the create event")
        return shown

    async def taken_back(self, origin: str, room_id: str, pdu: Any) -> None:
        """An event of a room that nobody of this server is in: it may take an invite of one of our users back.

        It counts when it comes from the server of whoever invited; the rest of the room's rules cannot be checked here.
        """
        target = pdu.get("state_key") if isinstance(pdu, dict) else None
        if not isinstance(target, str) or server_name_of(target) != self._rooms.server_name:
            return
        room, record = self._rooms.find(room_id), room_log.membership_in(self._rooms.log, target, room_id)
        if room is None or record is None or record.membership not in ("invite", "knock"):
            return
        event = await self._checking.event(pdu, room.version, room_id)
        membership = event.content.get("membership")
        if event.type != "m.room.member" or membership not in ("leave", "ban", "invite"):
            return
        if record.membership == "invite" and server_name_of(event.sender) != server_name_of(record.sender):
            return
        if membership == "invite":
            return  # comes through PUT invite, with its stripped state
        record = room_log.membership_in(self._rooms.log, target, room_id)
        if record is None or record.membership not in ("invite", "knock") or record.event_id == event.event_id:
            return
        await keep_outside(self._rooms, event)


def _stripped_event(entry: Any) -> dict[str, Any] | None:
    """An entry of a stripped state with just the keys that it has to have; None if it lacks one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), dict):
        return None
    if not all(isinstance(entry.get(key), str) for key in ("type", "state_key", "sender")):
        return None
    return {key: entry[key] for key in ("type", "state_key", "sender", "content")}
