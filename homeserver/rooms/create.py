"""Making a room: all its first events in one append, so that a room is never half made.

Client-Server API, "Creation" (POST /createRoom): order of events, presets, defaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_room_alias, is_valid_user_id, server_name_of
from federation.rules.room_versions import RoomVersion, room_version
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.rooms.state_checks import check_power_levels, check_state_content
from storage.log import rooms as room_log
from storage.log.append import Batch

MAX_INVITES = 100
"""Invites in one createRoom; each is one event of the same append."""

MAX_INITIAL_STATE = 200


@dataclass(frozen=True, slots=True)
class Preset:
    """What one word of ``preset`` stands for."""

    join_rule: str
    history_visibility: str
    guest_access: str
    invitees_are_equals: bool = False


PRESETS: Mapping[str, Preset] = {
    "private_chat": Preset("invite", "shared", "can_join"),
    "trusted_private_chat": Preset("invite", "shared", "can_join", invitees_are_equals=True),
    "public_chat": Preset("public", "shared", "forbidden"),
}


@dataclass(frozen=True, slots=True)
class InitialState:
    """One state event that the creator wants in the room from the start."""

    type: str
    state_key: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What createRoom was asked for, already of the right types."""

    creator: str
    version: str
    preset: str
    published: bool = False
    alias: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    is_direct: bool = False
    creation_content: Mapping[str, Any] = field(default_factory=dict)
    power_level_content_override: Mapping[str, Any] = field(default_factory=dict)
    initial_state: Sequence[InitialState] = ()
    member_content: Mapping[str, Any] = field(default_factory=dict)
    """Profile of the creator, as it stands in the join event."""
    predecessor_power_levels: Mapping[str, Any] | None = None
    """Set by an upgrade: the old room's levels stand in for the defaults."""
    invitee_content: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Profiles of invited users of this server, as they stand in the invites."""
    room_id: str | None = None
    """Set by an upgrade that had to name the new room before it exists; from version 12 on the room names itself."""


class Create:
    """Makes rooms."""

    def __init__(self, rooms: Rooms, aliases: Aliases) -> None:
        self._rooms = rooms
        self._aliases = aliases

    async def create(self, wish: Wish) -> str:
        """Make the room and return its id once all of it is durable.

        Raises MatrixError 400 for what is not a valid wish: M_INVALID_ROOM_STATE, M_UNSUPPORTED_ROOM_VERSION,
        M_ROOM_IN_USE, M_INVALID_PARAM.
        """
        room, batch = self.stage(wish)
        await self._rooms.log.append(batch)
        return room.room_id

    def stage(self, wish: Wish, batch: Batch | None = None) -> tuple[Room, Batch]:
        """The synchronous half of `create`: decide everything and fill one batch, not yet appended.

        ``batch`` is one to go on with. Nothing is remembered of a room that is refused.
        """
        version = room_version(wish.version)
        self._check(wish)
        batch = batch or self._rooms.log.begin()
        room = self._first_event(batch, wish, version)
        try:
            for draft in self._drafts(wish, version):
                room.stage(batch, room.decide(draft))
        except MatrixError as error:
            if error.status == 403:
                raise MatrixError(400, "M_INVALID_ROOM_STATE", error.error) from error
            raise
        if wish.alias is not None:
            self._aliases.put(batch, wish.alias, room.room_id, wish.creator)
        if wish.published:
            self._aliases.publish(batch, room.room_id, True)
        self._rooms.add(room)
        return room, batch

    def _check(self, wish: Wish) -> None:
        if len(wish.invite) > MAX_INVITES:
            raise MatrixError(400, "M_INVALID_PARAM", f"At most {MAX_INVITES} people can be invited at creation")
        if len(wish.initial_state) > MAX_INITIAL_STATE:
            raise MatrixError(400, "M_INVALID_PARAM", f"initial_state has at most {MAX_INITIAL_STATE} events")
        for user_id in wish.invite:
            if not is_valid_user_id(user_id):
                raise MatrixError(400, "M_INVALID_PARAM", f"Not a user id: {user_id}")
        for item in wish.initial_state:
            check_state_content(item.type, item.state_key, item.content, "")
        if wish.alias is not None:
            if not is_valid_room_alias(wish.alias):
                raise MatrixError(400, "M_INVALID_PARAM", "Not a valid room alias")
            if self._aliases.find(wish.alias) is not None:
                raise MatrixError(400, "M_ROOM_IN_USE", "Room alias already taken")

    def _first_event(self, batch: Batch, wish: Wish, version: RoomVersion) -> Room:
        content: dict[str, Any] = dict(wish.creation_content)
        content["room_version"] = version.id
        if version.creator_is_sender:
            content.pop("creator", None)
        else:
            content["creator"] = wish.creator
        additional = self._additional_creators(wish, version)
        if additional:
            content["additional_creators"] = additional
        elif version.privileged_creators and "additional_creators" in content:
            del content["additional_creators"]
        room_id = None if version.room_id_is_create_hash else wish.room_id or self.new_room_id()
        draft = Draft(wish.creator, "m.room.create", content, state_key="")
        event = self._rooms.build(version, draft, room_id=room_id, depth=1, prev_events=[], auth_events=[])
        while self._rooms.find(event.room_id) is not None:
            # Room version 12 names a room after its first event: two alike in one millisecond would be one room.
            draft = replace(draft, timestamp=event.origin_server_ts + 1)
            event = self._rooms.build(version, draft, room_id=room_id, depth=1, prev_events=[], auth_events=[])
        federated = content.get("m.federate") is not False
        meta = room_log.RoomMeta(
            room_id=event.room_id, nid=0, version=version.id, creator=wish.creator, federated=federated
        )
        room = Room(self._rooms, meta)
        room.open(batch, event)
        return room

    def new_room_id(self) -> str:
        """A fresh id for a room of a version before 12."""
        return f"!{self._rooms.new_localpart()}:{self._rooms.server_name}"

    def _additional_creators(self, wish: Wish, version: RoomVersion) -> list[str]:
        if not version.privileged_creators:
            return []
        asked = wish.creation_content.get("additional_creators", [])
        if not isinstance(asked, list) or not all(isinstance(user, str) and is_valid_user_id(user) for user in asked):
            raise MatrixError(400, "M_INVALID_PARAM", "additional_creators is a list of user ids")
        users = list(asked)
        if PRESETS[wish.preset].invitees_are_equals:
            users += wish.invite
        return [user for user in dict.fromkeys(users) if user != wish.creator]

    def _drafts(self, wish: Wish, version: RoomVersion) -> list[Draft]:
        preset = PRESETS[wish.preset]
        given = {(state.type, state.state_key) for state in wish.initial_state}

        def state(type_: str, content: Mapping[str, Any], state_key: str = "") -> Draft:
            return Draft(wish.creator, type_, content, state_key=state_key)

        drafts = [
            state("m.room.member", {**wish.member_content, "membership": "join"}, wish.creator),
            state("m.room.power_levels", self._power_levels(wish, version, preset)),
        ]
        if wish.alias is not None:
            drafts.append(state("m.room.canonical_alias", {"alias": wish.alias}))
        for type_, content in (
            ("m.room.join_rules", {"join_rule": preset.join_rule}),
            ("m.room.history_visibility", {"history_visibility": preset.history_visibility}),
            ("m.room.guest_access", {"guest_access": preset.guest_access}),
        ):
            if (type_, "") not in given:
                drafts.append(state(type_, content))
        drafts += [state(item.type, item.content, item.state_key) for item in wish.initial_state if not _own(item)]
        if wish.name is not None:
            drafts.append(state("m.room.name", {"name": wish.name}))
        if wish.topic is not None:
            drafts.append(state("m.room.topic", topic_content(wish.topic)))
        direct = {"is_direct": True} if wish.is_direct else {}
        for user_id in dict.fromkeys(wish.invite):
            # Users of other servers are invited once the room is there: their servers sign the invites.
            if user_id != wish.creator and server_name_of(user_id) == self._rooms.server_name:
                profile = wish.invitee_content.get(user_id, {})
                drafts.append(state("m.room.member", {**profile, "membership": "invite", **direct}, user_id))
        return drafts

    def _power_levels(self, wish: Wish, version: RoomVersion, preset: Preset) -> dict[str, Any]:
        if wish.predecessor_power_levels is not None:
            return dict(wish.predecessor_power_levels)
        users: dict[str, int] = {} if version.privileged_creators else {wish.creator: 100}
        if preset.invitees_are_equals and not version.privileged_creators:
            users.update(dict.fromkeys(wish.invite, 100))
        content: dict[str, Any] = {
            "users": users,
            "users_default": 0,
            "events": {
                "m.room.name": 50,
                "m.room.power_levels": 100,
                "m.room.history_visibility": 100,
                "m.room.canonical_alias": 50,
                "m.room.avatar": 50,
                # Creators stand above every number; a tombstone stays theirs (and admins raised to 150).
                "m.room.tombstone": 150 if version.privileged_creators else 100,
                "m.room.server_acl": 100,
                "m.room.encryption": 100,
            },
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 50 if wish.preset == "public_chat" else 0,
            "historical": 100,
        }
        # Given by the initial state or by the override, the creator's own numbers win key by key.
        for item in wish.initial_state:
            if (item.type, item.state_key) == ("m.room.power_levels", ""):
                content = dict(item.content)
        content.update(wish.power_level_content_override)
        check_power_levels(content)
        return content


def _own(item: InitialState) -> bool:
    """State that createRoom makes itself, from its own parameters."""
    return item.type in ("m.room.create", "m.room.power_levels") and item.state_key == ""


def topic_content(topic: str) -> dict[str, Any]:
    """Content of m.room.topic with its plain text in both shapes (m.room.topic, "m.topic")."""
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic}]}}
