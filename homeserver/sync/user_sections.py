"""The sections of a sync that belong to the user or device: account data, to-device, presence, device lists."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import orjson

from homeserver.ephemeral.presence import OFFLINE, Presence
from homeserver.rooms.memberships import Memberships
from homeserver.sync import assemble
from homeserver.sync.scope import Scope
from storage.log import inbox
from storage.log.account_data import data_between

SMALL_ROOM = 100
"""Members up to which a room's newcomer is told of everybody; in a larger room clients take silence for offline."""
MAX_TO_DEVICE = 100
"""To-device messages in one answer (Client-Server API, "Extensions to /sync")."""


PUSH_RULES = "m.push_rules"


class DefaultPushRules(Protocol):
    """The push rules of those who never changed theirs (``homeserver.push.push_rules.PushRules``)."""

    def default_content(self, user_id: str) -> bytes:
        """Content of ``m.push_rules`` as JSON bytes."""


class AccountData(NamedTuple):
    """New account data: the account's own events, and those of each room."""

    account: list[bytes]
    rooms: dict[str, list[bytes]]


class UserSections:
    """Builds what is not a room."""

    def __init__(self, memberships: Memberships, presence: Presence, push_rules: DefaultPushRules) -> None:
        self._memberships = memberships
        self._presence = presence
        self._push_rules = push_rules

    def account_data(self, scope: Scope) -> AccountData:
        """What the user's clients stored since."""
        wants, room_wants = scope.request.filter.account_data, scope.request.filter.room_account_data
        found = AccountData([], {})
        default_rules = scope.since is None and wants.wants_type(PUSH_RULES)
        for datum in data_between(scope.view, scope.user_id, scope.since or 0, scope.upto):
            if not datum.room_id:
                default_rules = default_rules and datum.type != PUSH_RULES
                if wants.wants_type(datum.type):
                    found.account.append(assemble.account_datum(datum.type, datum.content))
            elif room_wants.wants_type(datum.type) and room_wants.wants_room(datum.room_id):
                event = assemble.account_datum(datum.type, datum.content)
                found.rooms.setdefault(datum.room_id, []).append(event)
        if default_rules:
            content = self._push_rules.default_content(scope.user_id)
            found.account.append(assemble.account_datum(PUSH_RULES, content))
        return found

    def to_device(self, scope: Scope) -> tuple[list[bytes], int]:
        """The next messages of the device's inbox, and the position up to which they are in this answer."""
        request = scope.request
        if request.device_id is None:
            return [], scope.upto
        after = 0 if request.since is None else request.since.inbox
        found = list(
            inbox.messages(scope.view, scope.user_id, request.device_id, after, scope.upto, MAX_TO_DEVICE)
        )
        upto = found[-1][0] if len(found) == MAX_TO_DEVICE else scope.upto
        return [message for _, message in found], upto

    def presence(self, scope: Scope, users: Iterable[str], came: Iterable[str], newly: Iterable[str]) -> list[bytes]:
        """Presence of users with news, of those who came into rooms of the reader, and of those in rooms newly joined.

        A first sync tells of everybody in sight who is not offline.
        """
        if not self._presence.enabled:
            return []
        own = scope.user_id
        if scope.since is None:
            chosen = self._in_sight(own)
            chosen.add(own)
            chosen = {user for user in chosen if self._presence.content(user)["presence"] != OFFLINE}
        else:
            chosen = {user for user in users if user == own or self._memberships.share_room(own, user)}
            chosen.update(came)
            for room_id in newly:
                members = self._memberships.joined_users(room_id)
                small = len(members) <= SMALL_ROOM
                chosen.update(user for user in members if small or self._presence.known(user))
        return list(self._presence_events(scope, chosen))

    def _in_sight(self, user_id: str) -> set[str]:
        seen: set[str] = set()
        for room_id in self._memberships.joined_rooms(user_id):
            seen.update(user for user in self._memberships.joined_users(room_id) if self._presence.known(user))
        return seen

    def _presence_events(self, scope: Scope, users: Iterable[str]) -> Iterator[bytes]:
        wants = scope.request.filter.presence
        if not wants.wants_type("m.presence"):
            return
        for user in users:
            if wants.wants_sender(user) and user not in scope.ignored:
                content = self._presence.content(user)
                yield orjson.dumps({"type": "m.presence", "sender": user, "content": content})
