"""Moving a room to another version.

Client-Server API, "Room upgrades": a new room that names the old one as predecessor, with its state carried over; then
a tombstone in the old room, after which nobody but those with the power may speak there.
"""

from collections.abc import Mapping
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id
from federation.rules.room_versions import RoomVersion, room_version
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import Create, InitialState, Wish
from homeserver.rooms.membership import Profiles
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.web.call import Requester

CARRIED_STATE = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.pinned_events",
)
"""State with an empty state key that goes along; bans and the power levels are treated apart."""

MAX_CARRIED_BANS = 10_000


class Upgrade:
    """Upgrades rooms."""

    def __init__(self, rooms: Rooms, aliases: Aliases, create: Create, profiles: Profiles) -> None:
        self._rooms = rooms
        self._aliases = aliases
        self._create = create
        self._profiles = profiles

    async def upgrade(
        self, requester: Requester, room_id: str, new_version: str, additional_creators: list[str]
    ) -> str:
        """Replace a room and return the new one's id. MatrixError 403 unless the caller may send the tombstone."""
        version = room_version(new_version)
        for user in additional_creators:
            if not is_valid_user_id(user):
                raise MatrixError(400, "M_INVALID_PARAM", f"Not a user id: {user}")
        profile = await self._profiles.member_content(requester.user_id)
        old = self._rooms.get(room_id)
        user_id = requester.user_id
        if old.membership(user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        levels = old.power_levels
        if levels.user(user_id) < levels.event("m.room.tombstone", True):
            raise MatrixError(403, "M_FORBIDDEN", "You may not upgrade this room")
        new, batch = self._create.stage(self._wish(old, user_id, version, additional_creators, profile))
        for target in self._banned(old):
            new.stage(batch, new.decide(Draft(user_id, "m.room.member", {"membership": "ban"}, state_key=target)))
        tombstone = {"body": "This room has been replaced", "replacement_room": new.room_id}
        old.stage(batch, old.decide(Draft(user_id, "m.room.tombstone", tombstone, state_key="")))
        self._move_aliases(batch, old, new, user_id)
        self._silence(batch, old, user_id)
        await self._rooms.log.append(batch)
        return new.room_id

    def _wish(
        self, old: Room, user_id: str, version: RoomVersion, additional: list[str], profile: Mapping[str, Any]
    ) -> Wish:
        create = old.content("m.room.create")
        creation = {
            k: v
            for k, v in create.items()
            if k not in ("creator", "room_version", "predecessor", "additional_creators")
        }
        creation["predecessor"] = {"room_id": old.room_id}
        if not version.room_id_is_create_hash:
            creation["predecessor"]["event_id"] = old.meta.extremities[0][0]
        if version.privileged_creators and additional:
            creation["additional_creators"] = additional
        initial = [
            InitialState(type_, "", event.content)
            for type_ in CARRIED_STATE
            if (event := old.state(type_)) is not None and event.content
        ]
        return Wish(
            creator=user_id,
            version=version.id,
            preset="private_chat",
            creation_content=creation,
            initial_state=tuple(initial),
            member_content=profile,
            predecessor_power_levels=self._power_levels(old, user_id, version, additional),
        )

    def _power_levels(self, old: Room, user_id: str, version: RoomVersion, additional: list[str]) -> dict[str, Any]:
        """The old room's levels, with the upgrader able to finish and creators left out where they stand above."""
        content = dict(old.content("m.room.power_levels"))
        users = content.get("users")
        users = dict(users) if isinstance(users, dict) else {}
        if version.privileged_creators:
            for creator in (user_id, *additional):
                users.pop(creator, None)
            events = content.get("events")
            events = dict(events) if isinstance(events, dict) else {}
            events["m.room.tombstone"] = max(150, events.get("m.room.tombstone", 0))
            content["events"] = events
        elif old.version.privileged_creators:
            users[user_id] = 100
        content["users"] = users
        return content

    def _banned(self, old: Room) -> list[str]:
        banned = []
        for user_id, event_id in old.members():
            event = self._rooms.event(event_id)
            if event is not None and event.content.get("membership") == "ban":
                banned.append(user_id)
                if len(banned) >= MAX_CARRIED_BANS:
                    break
        return banned

    def _move_aliases(self, batch: Any, old: Room, new: Room, user_id: str) -> None:
        """Local aliases follow the room, and the canonical alias with them."""
        canonical = old.state("m.room.canonical_alias")
        with self._rooms.log.snapshot() as snapshot:
            aliases = self._aliases.of_room(snapshot, old.room_id)
        for alias in aliases:
            found = self._aliases.find(alias)
            if found is None:
                continue
            self._aliases.delete(batch, alias, old.room_id)
            self._aliases.put(batch, alias, new.room_id, found.creator)
        if self._aliases.is_published(old.room_id):
            self._aliases.publish(batch, old.room_id, False)
            self._aliases.publish(batch, new.room_id, True)
        if canonical is not None and canonical.content:
            new.stage(batch, new.decide(Draft(user_id, "m.room.canonical_alias", canonical.content, state_key="")))
            try:
                old.stage(batch, old.decide(Draft(user_id, "m.room.canonical_alias", {}, state_key="")))
            except MatrixError:
                return  # who may upgrade may still lack the right to change the alias

    def _silence(self, batch: Any, old: Room, user_id: str) -> None:
        """Raise what is needed to speak and to invite in the old room, as far as the upgrader may."""
        content = dict(old.content("m.room.power_levels"))
        default = content.get("users_default", 0)
        if not isinstance(default, int):
            return
        level = max(50, default + 1)
        changed = False
        for key in ("events_default", "invite"):
            now = content.get(key, 0)
            if isinstance(now, int) and now < level:
                content[key] = level
                changed = True
        if not changed:
            return
        try:
            old.stage(batch, old.decide(Draft(user_id, "m.room.power_levels", content, state_key="")))
        except MatrixError:
            return  # the tombstone stands all the same
