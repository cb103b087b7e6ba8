"""POST /createRoom (create_room.yaml)."""

from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_alias, is_valid_user_id, server_name_of
from homeserver.rooms.at_once import for_a_while, some_at_once
from homeserver.rooms.create import MAX_INVITES, PRESETS, Create, InitialState, Wish
from homeserver.rooms.membership import Membership, Profiles
from homeserver.web.call import Call, Requester
from homeserver.web.routes import Route

PATIENCE = 30.0
"""Seconds that an answer waits for other servers to take their invites; later ones are given all the same."""


class StateEvent(msgspec.Struct):
    """One entry of ``initial_state``."""

    type: str
    content: dict[str, Any]
    state_key: str | None = None


class CreateRoomRequest(msgspec.Struct):
    """The body of createRoom; everything is optional, null counts as absent."""

    visibility: str | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] | None = None
    invite_3pid: list[dict[str, Any]] | None = None
    room_version: str | None = None
    creation_content: dict[str, Any] | None = None
    initial_state: list[StateEvent] | None = None
    preset: str | None = None
    is_direct: bool | None = None
    power_level_content_override: dict[str, Any] | None = None


class CreateRoom:
    """Makes rooms for clients."""

    def __init__(
        self,
        create: Create,
        membership: Membership,
        profiles: Profiles,
        server_name: str,
        default_room_version: str,
        clock: IReactorTime,
    ) -> None:
        self._create = create
        self._membership = membership
        self._report = Logger()
        self._profiles = profiles
        self._server_name = server_name
        self._default_room_version = default_room_version
        self._clock = clock

    def routes(self) -> list[Route]:
        """The operations of this module."""
        return [Route("POST", "/_matrix/client/v3/createRoom", self.post_create_room, limit="room_creation")]

    async def post_create_room(self, call: Call) -> dict[str, Any]:
        """Make a room; all its first events are durable, or none is, when this answers."""
        request = call.json(CreateRoomRequest)
        wish = await self._wish(call.requester.user_id, request)
        room_id = await self._create.create(wish)
        await self._invite_elsewhere(call.requester, room_id, wish)
        return {"room_id": room_id}

    async def _invite_elsewhere(self, requester: Requester, room_id: str, wish: Wish) -> None:
        """Invite users of other servers. The room stands whether or not a server answers, or when."""

        async def invite(user_id: str) -> None:
            try:
                await self._membership.invite(requester, room_id, user_id, None, is_direct=wish.is_direct, limited=False)
            except MatrixError as error:
                self._report.warn("{user} could not be invited: {why}", user=user_id, why=error.error)

        elsewhere = [user_id for user_id in dict.fromkeys(wish.invite) if server_name_of(user_id) != self._server_name]
        if elsewhere:
            await for_a_while(some_at_once(elsewhere, invite), PATIENCE, self._clock)

    async def _wish(self, creator: str, request: CreateRoomRequest) -> Wish:
        if request.visibility not in (None, "public", "private"):
            raise MatrixError(400, "M_INVALID_PARAM", "visibility is public or private")
        public = request.visibility == "public"
        preset = request.preset or ("public_chat" if public else "private_chat")
        if preset not in PRESETS:
            raise MatrixError(400, "M_INVALID_PARAM", f"Unknown preset {preset}")
        if request.invite_3pid:
            raise MatrixError(403, "M_THREEPID_DENIED", "This server invites nobody by e-mail or phone")
        for user_id in request.invite or ():
            if not is_valid_user_id(user_id):
                raise MatrixError(400, "M_INVALID_PARAM", f"Not a user id: {user_id}")
        alias = self._alias(request.room_alias_name)
        invite = tuple(request.invite or ())
        invitees = {}
        for user_id in invite[:MAX_INVITES]:
            if server_name_of(user_id) == self._server_name:
                invitees[user_id] = await self._profiles.member_content(user_id)
        return Wish(
            creator=creator,
            version=request.room_version or self._default_room_version,
            preset=preset,
            published=public,
            alias=alias,
            name=request.name,
            topic=request.topic,
            invite=invite,
            invitee_content=invitees,
            is_direct=bool(request.is_direct),
            creation_content=request.creation_content or {},
            power_level_content_override=request.power_level_content_override or {},
            initial_state=tuple(
                InitialState(item.type, item.state_key or "", item.content) for item in request.initial_state or ()
            ),
            member_content=await self._profiles.member_content(creator),
        )

    def _alias(self, name: str | None) -> str | None:
        if name is None:
            return None
        alias = f"#{name}:{self._server_name}"
        if not name or ":" in name or not is_valid_room_alias(alias):
            raise MatrixError(400, "M_INVALID_PARAM", "room_alias_name is not a valid local part of an alias")
        return alias
