"""Moving a room to another version.

Client-Server API, "Room upgrades": a new room that names the old one as predecessor, with its state carried over; then
a tombstone in the old room, after which nobody but those with the power may speak there.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_user_id
from federation.rules.power_levels import LEVEL_KEYS
from federation.rules.room_versions import RoomVersion, room_version
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import append_event, append_if_allowed, asks_first, stage_if_allowed
from homeserver.rooms.create import Create, InitialState, Wish
from homeserver.rooms.membership import Profiles
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.rooms.state_checks import check_state_content
from homeserver.rooms.succession import carry_over
from homeserver.web.call import Requester
from storage.log.append import Batch

CARRIED_STATE = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)
"""State with an empty state key that goes along; bans and the power levels are treated apart."""

MAX_CARRIED_BANS = 10_000
MAX_CARRIED_CHILDREN = 150


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
        new_id = None if version.room_id_is_create_hash else self._create.new_room_id()
        tombstone = _tombstone(user_id, new_id or room_id)
        policed = asks_first(self._rooms, old, tombstone)
        last = None
        if policed and new_id is not None:
            # What the policy server is asked about cannot share a turn with the new room: the tombstone goes first.
            last = (await append_event(self._rooms, old, tombstone)).event_id
            old = self._rooms.get(room_id)
        batch = self._rooms.log.begin()
        new = None
        try:
            if new_id is not None and not policed:
                last = self._bury(batch, old, tombstone)
            levels_after = self._power_levels(old, user_id, version, additional_creators)
            wish = self._wish(old, user_id, version, additional_creators, profile, levels_after, new_id, last)
            new, _ = self._create.stage(wish, batch)
            self._fill(batch, old, new, user_id)
            if new_id is None and not policed:
                self._bury(batch, old, _tombstone(user_id, new.room_id))
            self._move_aliases(batch, old, new, user_id)
            self._settle(batch, new, user_id, levels_after)
            # Who may upgrade may still lack the right to these.
            follow_up = [draft for draft in (_no_alias(old, user_id), _silence(old, user_id)) if draft is not None]
            if not policed:
                for draft in follow_up:
                    stage_if_allowed(batch, old, draft)
            carry_over(batch, user_id, old.room_id, new.room_id)
        except BaseException:
            self._rooms.drop(old.room_id)
            if new is not None:
                self._rooms.drop(new.room_id)
            raise
        await self._rooms.log.append(batch)
        if policed:
            if new_id is None:
                await append_event(self._rooms, self._rooms.get(room_id), _tombstone(user_id, new.room_id))
            for draft in follow_up:
                await append_if_allowed(self._rooms, room_id, draft)
        return new.room_id

    def _bury(self, batch: Batch, old: Room, tombstone: Draft) -> str:
        """Put the tombstone into the old room; its event id."""
        event = old.decide(tombstone)
        old.stage(batch, event)
        return event.event_id

    def _wish(
        self,
        old: Room,
        user_id: str,
        version: RoomVersion,
        additional: list[str],
        profile: Mapping[str, Any],
        levels: Mapping[str, Any],
        new_id: str | None,
        last_event: str | None,
    ) -> Wish:
        create = old.content("m.room.create")
        own = ("creator", "room_version", "predecessor", "additional_creators")
        creation = {key: value for key, value in create.items() if key not in own}
        creation["predecessor"] = {"room_id": old.room_id}
        if last_event is not None:
            creation["predecessor"]["event_id"] = last_event
        if version.privileged_creators and additional:
            creation["additional_creators"] = additional
        return Wish(
            creator=user_id,
            version=version.id,
            preset="private_chat",
            creation_content=creation,
            initial_state=tuple(self._carried(old)),
            member_content=profile,
            predecessor_power_levels=_raised(levels, user_id, version),
            room_id=new_id,
        )

    def _carried(self, old: Room) -> Iterator[InitialState]:
        for type_ in CARRIED_STATE:
            content = old.content(type_)
            try:
                check_state_content(type_, "", content, old.room_id)
            except MatrixError:
                continue  # the new room has the default instead
            if content:
                yield InitialState(type_, "", content)
        if old.content("m.room.create").get("type") != "m.space":
            return
        children = old.state_map.items(old.meta.state_root, "m.space.child")
        for (type_, child), _ in islice(children, MAX_CARRIED_CHILDREN):
            content = old.content(type_, child)
            if content:
                yield InitialState(type_, child, content)

    def _power_levels(self, old: Room, user_id: str, version: RoomVersion, additional: list[str]) -> dict[str, Any]:
        """The levels that the new room ends with: the old ones, in the new version's terms."""
        content = readable_power_levels(old.content("m.room.power_levels"))
        users = dict(content["users"])
        if version.privileged_creators:
            for creator in (user_id, *additional):
                users.pop(creator, None)
            # A tombstone stays with the creators, and with admins whom they raise that far.
            events = content["events"]
            content["events"] = {**events, "m.room.tombstone": max(150, events.get("m.room.tombstone", 0))}
        elif old.version.privileged_creators:
            users.update(dict.fromkeys(old.power_levels.creators, 100))
        content["users"] = users
        return content

    def _fill(self, batch: Batch, old: Room, new: Room, user_id: str) -> None:
        """Carry the bans over."""
        for target, content in self._banned(old):
            try:
                ban = new.decide(Draft(user_id, "m.room.member", content, state_key=target))
            except MatrixError:
                continue  # somebody who stands as high as the upgrader
            new.stage(batch, ban)

    def _settle(self, batch: Batch, new: Room, user_id: str, levels: Mapping[str, Any]) -> None:
        """Give back the power that was only needed to set the room up."""
        if new.content("m.room.power_levels") != levels:
            new.stage(batch, new.decide(Draft(user_id, "m.room.power_levels", levels, state_key="")))

    def _banned(self, old: Room) -> list[tuple[str, dict[str, Any]]]:
        banned = []
        for user_id, event_id in old.members():
            event = self._rooms.event(event_id)
            if event is not None and event.content.get("membership") == "ban":
                content = {key: value for key, value in event.content.items() if key in ("membership", "reason")}
                banned.append((user_id, content))
                if len(banned) >= MAX_CARRIED_BANS:
                    break
        return banned

    def _move_aliases(self, batch: Batch, old: Room, new: Room, user_id: str) -> None:
        """Local aliases follow the room, and the canonical alias with them."""
        canonical = old.state("m.room.canonical_alias")
        self._aliases.succeed(batch, old.room_id, new.room_id)
        if canonical is not None and canonical.content:
            new.stage(batch, new.decide(Draft(user_id, "m.room.canonical_alias", canonical.content, state_key="")))


def _tombstone(user_id: str, new_id: str) -> Draft:
    content = {"body": "This room has been replaced", "replacement_room": new_id}
    return Draft(user_id, "m.room.tombstone", content, state_key="")


def _no_alias(old: Room, user_id: str) -> Draft | None:
    """What takes the old room's aliases from it."""
    had = old.content("m.room.canonical_alias")
    return Draft(user_id, "m.room.canonical_alias", {}, state_key="") if had else None


def _silence(old: Room, user_id: str) -> Draft | None:
    """What raises the power that is needed to speak and to invite in the old room."""
    content = dict(old.content("m.room.power_levels"))
    default = content.get("users_default", 0)
    if not isinstance(default, int):
        return None
    level = max(50, default + 1)
    raised = {
        key: level
        for key in ("events_default", "invite")
        if isinstance(now := content.get(key, 0), int) and now < level
    }
    return Draft(user_id, "m.room.power_levels", {**content, **raised}, state_key="") if raised else None


def readable_power_levels(content: Mapping[str, Any]) -> dict[str, Any]:
    """Power levels as a new room takes them: integers alone, ``users`` and ``events`` always there."""
    clean: dict[str, Any] = {}
    for key, value in content.items():
        if key in ("users", "events", "notifications"):
            clean[key] = {
                name: level
                for name, level in (value.items() if isinstance(value, dict) else ())
                if type(level) is int and (key != "users" or is_valid_user_id(name))
            }
        elif key not in LEVEL_KEYS or type(value) is int:
            clean[key] = value
    return {"users": {}, "events": {}, **clean}


def _raised(levels: Mapping[str, Any], user_id: str, version: RoomVersion) -> dict[str, Any]:
    """The levels with which the room begins: the upgrader may set everything up."""
    if version.privileged_creators:
        return dict(levels)
    single = [levels.get(key, 50) for key in LEVEL_KEYS]
    needed = max(100, *single, *levels["events"].values(), *levels["users"].values())
    return {**levels, "users": {**levels["users"], user_id: needed}}
