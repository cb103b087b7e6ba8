"""Coming and going: join, invite, knock, leave, kick, ban, unban, forget.

Client-Server API, "Room membership". Whether a transition is allowed is said by the auth rules
(`federation.rules.membership_auth`); here stands what an endpoint promises besides: what is answered when nothing
changes, what a guest may do, who vouches for a restricted join.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_room_alias, is_valid_room_id, is_valid_user_id, server_name_of
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.append import append_event, append_if_allowed, asks_first, stage_if_allowed
from homeserver.rooms.at_once import some_at_once
from homeserver.rooms.guests import admits_guests
from homeserver.rooms.notes import EventNote
from homeserver.rooms.room import Draft, Room, Rooms
from homeserver.rooms.succession import carry_over
from homeserver.rooms.third_party import pending_invite, redeemed
from homeserver.web.call import Requester
from homeserver.web.limits import Limits
from storage.log import rooms as room_log
from storage.log.append import Batch, Kind


class Profiles(Protocol):
    """Where the names and avatars that go into member events come from."""

    async def member_content(self, user_id: str) -> dict[str, Any]:
        """``displayname`` and ``avatar_url`` as far as the user has set them."""
        ...


class RemoteMembership(Protocol):
    """Membership over federation; see :class:`homeserver.rooms.remote.Remote`."""

    def takes_part(self, room_id: str) -> bool:
        """Whether this server has somebody in the room, so that it can decide itself."""

    async def resolve(self, alias: str) -> tuple[str, list[str]]:
        """The room behind an alias of another server, and servers that are in it. MatrixError 404."""

    async def join(self, user_id: str, room_id: str, via: Sequence[str], content: Mapping[str, Any]) -> None:
        """Join through another server."""

    async def leave(self, user_id: str, room_id: str, content: Mapping[str, Any]) -> None:
        """Decline an invite into a room that we are not in, or take a knock back."""

    async def knock(self, user_id: str, room_id: str, via: Sequence[str], content: Mapping[str, Any]) -> None:
        """Knock through another server."""

    async def invite(self, room: Room, sender: str, target: str, content: Mapping[str, Any]) -> str:
        """Invite a user of another server."""


class Membership:
    """Changes memberships on behalf of local users.

    ``remote`` is set when the server federates; without it only rooms that this server is in can be entered.
    """

    def __init__(
        self,
        rooms: Rooms,
        aliases: Aliases,
        profiles: Profiles,
        remote: RemoteMembership | None = None,
        limits: Limits | None = None,
    ) -> None:
        """``limits`` bound invites into a room and to a user, and joins of rooms that this server is not in."""
        self._rooms = rooms
        self._aliases = aliases
        self._profiles = profiles
        self.remote = remote
        self._limits = limits
        self.check_proof: Callable[[Event, Mapping[str, Any]], Awaitable[None]] | None = None
        """Asks whether the key that proves a third-party invite is still good; MatrixError 403, 502. Set as ``remote`` is."""

    async def find_room(self, room_id_or_alias: str, via: Sequence[str] = ()) -> tuple[str, list[str]]:
        """The room behind an id or an alias of any server, and the servers to ask for it. MatrixError 400, 404."""
        known = list(via)
        if self.remote is None or not room_id_or_alias.startswith("#"):
            return self.resolve(room_id_or_alias), known
        if server_name_of(room_id_or_alias) == self._rooms.server_name:
            return self.resolve(room_id_or_alias), known
        room_id, servers = await self.remote.resolve(room_id_or_alias)
        return room_id, [*known, *servers]

    def _outside(self, room_id: str) -> "RemoteMembership | None":
        """The way to a room that nobody of this server is in, None for other rooms and without federation."""
        if not is_valid_room_id(room_id):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a room id")
        return None if self.remote is None or self.remote.takes_part(room_id) else self.remote

    def resolve(self, room_id_or_alias: str) -> str:
        """The room id behind an id or an alias of ours. MatrixError 400 for neither, 404 for an unknown alias."""
        if room_id_or_alias.startswith("#"):
            if not is_valid_room_alias(room_id_or_alias):
                raise MatrixError(400, "M_INVALID_PARAM", "Not a valid room alias")
            room_id = self._aliases.room_of(room_id_or_alias)
            if room_id is None:
                raise MatrixError(404, "M_NOT_FOUND", f"Room alias {room_id_or_alias} not found")
            return room_id
        if not is_valid_room_id(room_id_or_alias):
            raise MatrixError(400, "M_INVALID_PARAM", f"{room_id_or_alias} is neither a room id nor an alias")
        return room_id_or_alias

    async def join(
        self,
        requester: Requester,
        room_id: str,
        extra: Mapping[str, Any],
        reason: str | None,
        third_party_signed: Mapping[str, Any] | None = None,
        via: Sequence[str] = (),
    ) -> None:
        """Join the caller. ``extra`` is content that the caller wants in the event besides the profile.

        ``third_party_signed`` is the proof that an invitation by e-mail or phone was meant for the caller. Joining
        twice changes nothing. ``via`` are servers to ask for a room that this one is not in. Raises MatrixError 403 for
        whom the join rules keep out, 404 for a room that nobody knows.
        """
        self._rooms.check_open(room_id)
        if (remote := self._outside(room_id)) is not None and (via or self._is_elsewhere(room_id, requester.user_id)):
            if self._limits is not None and not requester.unlimited:
                self._limits.take("joins.remote", requester.user_id)
            await self._join_elsewhere(remote, requester, room_id, via, await self._joining(requester, extra, reason))
            return
        room = self._known(room_id)
        user_id = requester.user_id
        if room.membership(user_id) == "join":
            await self._rooms.settled()
            return
        if room.meta.partial_state and self.remote is not None:
            # Whether they may, only who knows all members can say.
            joining = await self._joining(requester, extra, reason)
            await self._join_elsewhere(self.remote, requester, room_id, via, joining)
            return
        if third_party_signed is not None and room.membership(user_id) != "invite" and self.check_proof is not None:
            await self.check_proof(pending_invite(room, third_party_signed), third_party_signed)
        profile = await self._profiles.member_content(user_id)
        # The profile came from another thread: the room may have changed meanwhile, decide from here on in one turn.
        room = self._known(room_id)
        self._admit_guest(room, requester)
        content = _join_content(requester, extra, profile, reason)
        invite = None
        if third_party_signed is not None and room.membership(user_id) not in ("invite", "join"):
            invite = redeemed(pending_invite(room, third_party_signed), user_id, third_party_signed)
        try:
            voucher = self.voucher(room, user_id) if invite is None else None
        except MatrixError as error:
            # Somebody of another server may be able to let the user in.
            if self.remote is None or error.errcode not in ("M_UNABLE_TO_GRANT_JOIN", "M_FORBIDDEN"):
                raise
            if not self._elsewhere(room):
                raise
            await self._join_elsewhere(self.remote, requester, room_id, via, content)
            return
        if voucher is not None:
            content["join_authorised_via_users_server"] = voucher
        await self._change(room, user_id, user_id, content, before=invite)

    async def _joining(
        self, requester: Requester, extra: Mapping[str, Any], reason: str | None
    ) -> dict[str, Any]:
        profile = await self._profiles.member_content(requester.user_id)
        return _join_content(requester, extra, profile, reason)

    def _is_elsewhere(self, room_id: str, user_id: str) -> bool:
        """Whether somebody else may know a room that we are not in: invited from there, named in its id, or known."""
        record = room_log.membership_in(self._rooms.log, user_id, room_id)
        invited = record is not None and server_name_of(record.sender) != self._rooms.server_name
        return invited or server_name_of(room_id) not in ("", self._rooms.server_name)

    def _elsewhere(self, room: Room) -> bool:
        """Whether somebody of another server is in a room."""
        own = self._rooms.server_name
        return any(
            server_name_of(user_id) != own and room.membership(user_id) == "join" for user_id, _ in room.members()
        )

    def _admit_guest(self, room: Room, requester: Requester) -> None:
        """Guests come in only where they are let in (Client-Server API, "Guest Access")."""
        if requester.is_guest and not admits_guests(room):
            raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests are not allowed in this room")

    async def _join_elsewhere(
        self,
        remote: RemoteMembership,
        requester: Requester,
        room_id: str,
        via: Sequence[str],
        content: Mapping[str, Any],
    ) -> None:
        """Join through another server, and do what needs the room's state, which is known only then."""
        await remote.join(requester.user_id, room_id, via, content)
        room = self._known(room_id)
        try:
            self._admit_guest(room, requester)
        except MatrixError:
            await self.leave(requester, room_id, None)
            raise
        batch = self._rooms.log.begin()
        self._carry_over(batch, room, requester.user_id)
        if batch.puts:
            await self._rooms.log.append(batch)

    def voucher(self, room: Room, user_id: str) -> str | None:
        """The local member who vouches for a restricted join, None where no voucher is needed.

        Specification: m.room.join_rules, "Restricted rooms". Raises MatrixError 403 when the user meets no condition.
        """
        if room.join_rule() not in ("restricted", "knock_restricted") or not room.version.restricted_join:
            return None
        if room.membership(user_id) in ("invite", "join"):
            return None
        allowed = room.content("m.room.join_rules").get("allow")
        meets = False
        for condition in allowed if isinstance(allowed, list) else []:
            if not isinstance(condition, dict) or condition.get("type") != "m.room_membership":
                continue
            other_id = condition.get("room_id")
            other = self._rooms.find(other_id) if isinstance(other_id, str) else None
            if other is not None and other.membership(user_id) == "join":
                meets = True
                break
        if not meets:
            raise MatrixError(403, "M_FORBIDDEN", "You are in none of the rooms whose members may join this one")
        for candidate in self._inviters(room):
            return candidate
        raise MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "Nobody of this server may let you in")

    def _inviters(self, room: Room) -> Iterator[str]:
        """Joined users of this server who may invite; those with a level of their own come first."""
        levels, server_name = room.power_levels, self._rooms.server_name
        needed = levels.action("invite")
        for user_id in (*levels.creators, *levels.users()):
            may = server_name_of(user_id) == server_name and levels.user(user_id) >= needed
            if may and room.membership(user_id) == "join":
                yield user_id
        if levels.users_default >= needed:
            yield from (user_id for user_id in room.local_joined() if levels.user(user_id) >= needed)

    async def invite(
        self,
        requester: Requester,
        room_id: str,
        target: str,
        reason: str | None,
        *,
        is_direct: bool = False,
        limited: bool = True,
    ) -> None:
        """Invite ``target``; inviting who is already invited is done again only when the content differs.

        Not ``limited``: an invite that comes with the room, which the limit on new rooms has counted.
        """
        self._check_user(target)
        self._rooms.check_open(room_id)
        room = self._known(room_id)
        if room.membership(requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        if room.membership(target) == "join":
            raise MatrixError(403, "M_FORBIDDEN", f"{target} is already in the room")
        if limited:
            self._limit_invite(requester, room_id, target)
        profile: dict[str, Any] = {}
        if server_name_of(target) == self._rooms.server_name:
            profile = await self._profiles.member_content(target)
            room = self._known(room_id)
            if room.membership(target) == "join":
                raise MatrixError(403, "M_FORBIDDEN", f"{target} is already in the room")
        content: dict[str, Any] = {**profile, "membership": "invite"}
        if is_direct:
            content["is_direct"] = True
        if reason is not None:
            content["reason"] = reason
        if self.remote is not None and server_name_of(target) != self._rooms.server_name:
            await self.remote.invite(room, requester.user_id, target, content)
            return
        await self._change(room, requester.user_id, target, content)

    async def knock(
        self, requester: Requester, room_id: str, reason: str | None, via: Sequence[str] = ()
    ) -> None:
        """Ask to be let in (room versions 7 and later). Knocking twice changes nothing.

        ``via`` are servers to ask for a room that this one is not in.
        """
        self._rooms.check_open(room_id)
        if (remote := self._outside(room_id)) is not None and (via or self._is_elsewhere(room_id, requester.user_id)):
            profile = await self._profiles.member_content(requester.user_id)
            await remote.knock(requester.user_id, room_id, via, {**profile, **_with_reason("knock", reason)})
            return
        room = self._known(room_id)
        if room.membership(requester.user_id) == "knock":
            await self._rooms.settled()
            return
        profile = await self._profiles.member_content(requester.user_id)
        room = self._known(room_id)
        content: dict[str, Any] = {**profile, "membership": "knock"}
        if reason is not None:
            content["reason"] = reason
        await self._change(room, requester.user_id, requester.user_id, content)

    async def leave(self, requester: Requester, room_id: str, reason: str | None) -> None:
        """Leave, decline an invite or take a knock back. Having left already is fine, never having been in is not."""
        if (remote := self._outside(room_id)) is not None:
            record = room_log.membership_in(self._rooms.log, requester.user_id, room_id)
            if record is not None and record.membership in ("invite", "knock"):
                await remote.leave(requester.user_id, room_id, _with_reason("leave", reason))
                return
        room = self._known(room_id)
        now = room.membership(requester.user_id)
        if now == "leave":
            await self._rooms.settled()
            return
        if now is None:
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
        await self._change(room, requester.user_id, requester.user_id, _with_reason("leave", reason))

    async def kick(self, requester: Requester, room_id: str, target: str, reason: str | None) -> None:
        """Remove somebody else who is joined, invited or knocking."""
        self._check_user(target)
        room = self._known(room_id)
        self._require_joined(room, requester)
        if room.membership(target) not in ("join", "invite", "knock"):
            raise MatrixError(403, "M_FORBIDDEN", f"{target} is not in the room")
        await self._change(room, requester.user_id, target, _with_reason("leave", reason))

    async def ban(self, requester: Requester, room_id: str, target: str, reason: str | None) -> None:
        """Ban somebody, in the room or not."""
        self._check_user(target)
        room = self._known(room_id)
        self._require_joined(room, requester)
        await self._change(room, requester.user_id, target, _with_reason("ban", reason))

    async def unban(self, requester: Requester, room_id: str, target: str, reason: str | None) -> None:
        """Lift a ban. MatrixError 403 if there is none."""
        self._check_user(target)
        room = self._known(room_id)
        self._require_joined(room, requester)
        if room.membership(target) != "ban":
            raise MatrixError(403, "M_FORBIDDEN", f"{target} is not banned")
        await self._change(room, requester.user_id, target, _with_reason("leave", reason))

    async def set_member(
        self, requester: Requester, room_id: str, target: str, content: Mapping[str, Any]
    ) -> str:
        """A membership set through PUT state: checked as the act that it amounts to. Returns the event's id."""
        self._check_user(target)
        room = self._known(room_id)
        membership = content.get("membership")
        if membership not in ("join", "invite", "leave", "ban", "knock"):
            raise MatrixError(400, "M_BAD_JSON", "membership is one of join, invite, knock, leave, ban")
        if membership in ("join", "invite", "knock"):
            self._rooms.check_open(room_id)
        current = room.state("m.room.member", target)
        if current is not None and current.sender == requester.user_id and dict(current.content) == dict(content):
            await self._rooms.settled()
            return current.event_id
        whole = dict(content)
        if membership == "join" and target == requester.user_id:
            self._admit_guest(room, requester)
            whole.pop("kind", None)
            whole.pop("join_authorised_via_users_server", None)
            if requester.is_guest:
                whole["kind"] = "guest"
            voucher = None if room.membership(target) == "join" else self.voucher(room, target)
            if voucher is not None:
                whole["join_authorised_via_users_server"] = voucher
        if membership == "invite":
            self._limit_invite(requester, room_id, target)
        elsewhere = server_name_of(target) != self._rooms.server_name
        if membership == "invite" and elsewhere and self.remote is not None:
            return await self.remote.invite(room, requester.user_id, target, whole)
        return await self._change(room, requester.user_id, target, whole)

    async def forget(self, requester: Requester, room_id: str) -> None:
        """Stop showing a room that the caller has left. MatrixError 400 while they are in it or invited."""
        record = room_log.membership_in(self._rooms.log, requester.user_id, room_id)
        if record is None:
            raise MatrixError(404, "M_NOT_FOUND", "You were never in this room")
        if record.membership in ("join", "invite", "knock"):
            raise MatrixError(400, "M_UNKNOWN", "Leave the room before forgetting it")
        if record.forgotten:
            await self._rooms.settled()
            return
        batch = self._rooms.log.begin()
        room_log.forget(batch, requester.user_id, room_id)
        batch.entry(Kind.MEMBERSHIP, room_id=room_id, user_id=requester.user_id)
        await self._rooms.log.append(batch)

    async def on_profile_change(self, user_id: str, profile: Mapping[str, Any]) -> None:
        """Carry a changed profile into the member events of the user's rooms, all in few appends."""
        wanted = {key: profile[key] for key in ("displayname", "avatar_url") if profile.get(key) is not None}
        await self._rewrite(user_id, frozenset(("displayname", "avatar_url")), wanted)

    async def on_guest_upgrade(self, user_id: str) -> None:
        """Take the mark of a guest from the member events of somebody who has become a user."""
        await self._rewrite(user_id, frozenset(("kind",)), {})

    async def _rewrite(self, user_id: str, leave_out: frozenset[str], wanted: Mapping[str, Any]) -> None:
        with self._rooms.log.snapshot() as snapshot:
            joined = [
                room_id
                for room_id, record in room_log.membership_of(snapshot, user_id).items()
                if record.membership == "join"
            ]
        policed: list[tuple[str, Draft]] = []
        for start in range(0, len(joined), 50):
            batch = self._rooms.log.begin()
            some = joined[start : start + 50]
            try:
                for room_id in some:
                    room = self._rooms.find(room_id)
                    draft = None if room is None else self._rewritten(room, user_id, leave_out, wanted)
                    if room is None or draft is None:
                        continue
                    if asks_first(self._rooms, room, draft):
                        policed.append((room_id, draft))
                    else:
                        stage_if_allowed(batch, room, draft)  # a room that refuses the new event keeps the old one
            except BaseException:
                for room_id in some:  # their pictures have moved on to what is not appended
                    self._rooms.drop(room_id)
                raise
            await self._rooms.log.append(batch)
        await some_at_once(policed, lambda one: append_if_allowed(self._rooms, *one))

    def _rewritten(
        self, room: Room, user_id: str, leave_out: frozenset[str], wanted: Mapping[str, Any]
    ) -> Draft | None:
        event = room.state("m.room.member", user_id)
        if event is None or event.content.get("membership") != "join":
            return None
        kept = {k: v for k, v in event.content.items() if k not in leave_out}
        content = {**kept, **wanted}
        return None if content == event.content else Draft(user_id, "m.room.member", content, state_key=user_id)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _limit_invite(self, requester: Requester, room_id: str, target: str) -> None:
        if self._limits is not None and not requester.unlimited:
            self._limits.take("invites.per_room", room_id)
            self._limits.take("invites.per_user", target)

    def _known(self, room_id: str) -> Room:
        if not is_valid_room_id(room_id):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a room id")
        return self._rooms.get(room_id)

    def _check_user(self, user_id: str) -> None:
        if not is_valid_user_id(user_id):
            raise MatrixError(400, "M_INVALID_PARAM", "Not a user id")

    def _require_joined(self, room: Room, requester: Requester) -> None:
        if room.membership(requester.user_id) != "join":
            raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")

    async def _change(
        self, room: Room, sender: str, target: str, content: Mapping[str, Any], before: Draft | None = None
    ) -> str:
        """Set a membership (``before`` it another one) and wait until it is durable; the event's id."""
        current = room.state("m.room.member", target)
        if current is not None and current.sender == sender and dict(current.content) == dict(content):
            await self._rooms.settled()
            return current.event_id
        if before is not None:
            await append_event(self._rooms, room, before)
            room = self._known(room.room_id)
        draft = Draft(sender, "m.room.member", content, state_key=target)
        return (await append_event(self._rooms, room, draft, also=self._joined)).event_id

    def _joined(self, batch: Batch, room: Room, event: Event, note: EventNote) -> None:
        if note.membership == "join" and note.prev_membership != "join":
            self._carry_over(batch, room, str(event.state_key))

    def _carry_over(self, batch: Batch, room: Room, user_id: str) -> None:
        """Whoever joins the successor of a room of theirs finds their marks of the old one there.

        What this server's directory has of the old room moves with the first of them, once the old room agrees.
        """
        predecessor = room.content("m.room.create").get("predecessor")
        old_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not isinstance(old_id, str) or not is_valid_room_id(old_id):
            return
        if room_log.membership_in(self._rooms.log, user_id, old_id) is None:
            return
        carry_over(batch, user_id, old_id, room.room_id)
        old = self._rooms.find(old_id)
        if old is not None and old.content("m.room.tombstone").get("replacement_room") == room.room_id:
            self._aliases.succeed(batch, old_id, room.room_id)


def _join_content(
    requester: Requester, extra: Mapping[str, Any], profile: Mapping[str, Any], reason: str | None
) -> dict[str, Any]:
    content: dict[str, Any] = {**extra, **profile, "membership": "join"}
    if requester.is_guest:
        content["kind"] = "guest"
    if reason is not None:
        content["reason"] = reason
    return content


def _with_reason(membership: str, reason: str | None) -> dict[str, Any]:
    return {"membership": membership} if reason is None else {"membership": membership, "reason": reason}
