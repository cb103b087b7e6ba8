"""A room as the calls from before ``/sync`` show it: state, last messages and the user's own data in one object.

Client-Server API, "GET /initialSync" (deprecated) and "GET /rooms/{roomId}/initialSync" (room previews): ``RoomInfo``.
"""

from typing import Any

import orjson

from homeserver.ephemeral.presence import OFFLINE, Presence
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.read import Reader, Reading
from homeserver.sync import tokens
from homeserver.sync.room_ephemeral import PRIVATE_TYPE, receipt_event
from homeserver.web.call import Requester
from storage.log import events as event_log
from storage.log import rooms as room_log
from storage.log.account_data import data_of
from storage.log.receipts import receipts_between
from storage.log.view import Snapshot

MAX_PRESENCE = 1000
"""Presence events in one room's object; larger rooms show those of some members."""


class RoomInfos:
    """Makes ``RoomInfo`` objects for readers."""

    def __init__(
        self, reading: Reading, aliases: Aliases, memberships: Memberships, presence: Presence
    ) -> None:
        self._reading = reading
        self._aliases = aliases
        self._memberships = memberships
        self._presence = presence

    def room(self, snapshot: Snapshot, requester: Requester, room_id: str, limit: int) -> dict[str, Any]:
        """A room that the caller may read: theirs, one they have left, or a world readable one.

        ``limit``: messages at most. Raises MatrixError 403 M_FORBIDDEN for any other room.
        """
        reader = self._reading.open(snapshot, requester, room_id)
        member = room_log.membership_in(snapshot, requester.user_id, room_id)
        info: dict[str, Any] = {"room_id": room_id}
        if member is not None and not member.forgotten:
            info["membership"] = member.membership
        info["visibility"] = self._visibility(room_id)
        info["messages"] = self._messages(reader, limit)
        info["state"] = [orjson.Fragment(reader.render(record)) for record in reader.state_events()]
        info["account_data"] = self.account_data(snapshot, requester.user_id, room_id)
        info["presence"] = self._members_presence(room_id) if reader.joined else []
        info["receipts"] = self._receipts(snapshot, requester.user_id, room_id) if reader.joined else []
        return info

    def invited(self, snapshot: Snapshot, requester: Requester, record: room_log.MembershipRecord) -> dict[str, Any]:
        """A room that the caller has yet to enter: the invitation (or the knock) itself."""
        info: dict[str, Any] = {
            "room_id": record.room_id,
            "membership": record.membership,
            "inviter": record.sender,
            "visibility": self._visibility(record.room_id),
        }
        event = event_log.event_by_id(snapshot, record.event_id)
        if event is not None:
            info["invite"] = orjson.Fragment(event.client_json(True))
        return info

    def account_data(self, snapshot: Snapshot, user_id: str, room_id: str) -> list[dict[str, Any]]:
        """Account data of one room, or with an empty room id that of the account."""
        return [
            {"type": datum.type, "content": orjson.Fragment(datum.content)}
            for datum in data_of(snapshot, user_id, room_id)
        ]

    def presence(self, user_ids: "list[str]") -> list[dict[str, Any]]:
        """``m.presence`` events of users who are not offline."""
        found = []
        for user_id in user_ids:
            content = self._presence.content(user_id)
            if content["presence"] != OFFLINE:
                content["user_id"] = user_id
                found.append({"type": "m.presence", "sender": user_id, "content": content})
        return found

    def _members_presence(self, room_id: str) -> list[dict[str, Any]]:
        members = (user for user in self._memberships.joined_users(room_id) if self._presence.known(user))
        return self.presence(sorted(members)[:MAX_PRESENCE])

    def _visibility(self, room_id: str) -> str:
        return "public" if self._aliases.is_published(room_id) else "private"

    def _receipts(self, snapshot: Snapshot, user_id: str, room_id: str) -> list[orjson.Fragment]:
        receipts = [
            receipt
            for receipt in receipts_between(snapshot, room_id, 0, self._reading.log.position)
            if receipt.type != PRIVATE_TYPE or receipt.user_id == user_id
        ]
        return [orjson.Fragment(receipt_event(receipts))] if receipts else []

    def _messages(self, reader: Reader, limit: int) -> dict[str, Any]:
        newest = reader.meta.last_seq if reader.departure is None else reader.departure
        page = self._reading.slice(reader, newest + 1, None, limit, backwards=True)
        page.records.reverse()
        log = self._reading.log
        first = page.records[0].seq if page.records else newest + 1
        assert first is not None
        messages: dict[str, Any] = {
            "chunk": [orjson.Fragment(reader.render(record)) for record in page.records],
            "start": tokens.timeline_token(log.epoch, log.position, first),
            "end": tokens.timeline_token(log.epoch, log.position, newest + 1),
        }
        return messages
