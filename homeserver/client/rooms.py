"""Reading a room's events and state (rooms.yaml)."""

from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, TypeVar

import orjson

from federation.rules.errors import MatrixError
from homeserver.rooms.read import Reader, Reading
from homeserver.sync import tokens
from homeserver.web.call import Call
from homeserver.web.routes import Auth, Route
from storage.log.events import EventRecord, event_by_id
from storage.log.state_map import StateMap

MEMBERSHIPS = frozenset({"join", "invite", "knock", "leave", "ban"})
PART = 500
"""Events of a state that are read in one turn of the reactor, about ten milliseconds."""

T = TypeVar("T")


class RoomsReading:
    """GET event, state, members and joined_members."""

    def __init__(
        self,
        reading: Reading,
        pause: Callable[[], Awaitable[None]],
        whole: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """``pause`` lets others have their turn; ``whole`` waits until all members of a room are known (they come later
        than the room itself, at times)."""
        self._reading = reading
        self._pause = pause
        self._whole = whole

    def routes(self) -> list[Route]:
        """The operations of this module; an empty state key may come with or without the last slash."""
        room = "/_matrix/client/v3/rooms/{roomId}"
        return [
            Route("GET", room + "/event/{eventId}", self.get_event, Auth.GUEST),
            Route("GET", room + "/state", self.get_state, Auth.GUEST),
            Route("GET", room + "/state/{eventType}/{stateKey}", self.get_state_event, Auth.GUEST),
            Route(
                "GET", room + "/state/{eventType}", self.get_state_event, Auth.GUEST,
                aliases=(room + "/state/{eventType}/",),
            ),
            Route("GET", room + "/members", self.get_members, Auth.GUEST),
            Route("GET", room + "/joined_members", self.get_joined_members),
        ]  # fmt: skip

    def get_event(self, call: Call) -> dict[str, Any]:
        """One event by id."""
        with self._reading.log.snapshot() as snapshot:
            try:
                reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            except MatrixError:
                raise MatrixError(404, "M_NOT_FOUND", "Event not found") from None
            record = self._reading.event(reader, call.params["eventId"])
            return orjson.Fragment(reader.render(record))  # type: ignore[return-value]

    async def get_state(self, call: Call) -> dict[str, Any]:
        """All state events that the caller may see: the current ones, or those of when they left."""
        await self._complete(call)
        return await self._each(call, lambda reader, record: orjson.Fragment(reader.render(record)))  # type: ignore[return-value]

    def get_state_event(self, call: Call) -> dict[str, Any]:
        """The content of one state event; with ``format=event`` the whole event."""
        shape = call.query("format", "content")
        if shape not in ("content", "event"):
            raise MatrixError(400, "M_INVALID_PARAM", "format is content or event")
        with self._reading.log.snapshot() as snapshot:
            reader = self._reading.open(snapshot, call.requester, call.params["roomId"])
            record = reader.state_event(call.params["eventType"], call.params.get("stateKey", ""))
            if record is None:
                raise MatrixError(404, "M_NOT_FOUND", "There is no such state event")
            body = record.content_json if shape == "content" else reader.render(record)
        return orjson.Fragment(body)  # type: ignore[return-value]

    async def get_members(self, call: Call) -> dict[str, Any]:
        """The member events of the room, now or at a point in time."""
        wanted, unwanted = _membership(call, "membership"), _membership(call, "not_membership")
        await self._complete(call)

        def shown(reader: Reader, record: EventRecord) -> orjson.Fragment | None:
            if wanted or unwanted:
                membership = membership_of(record)
                if (wanted and membership != wanted) or (unwanted and membership == unwanted):
                    return None
            return orjson.Fragment(reader.render(record))

        return {"chunk": await self._each(call, shown, "m.room.member", call.query("at"), peek=False)}

    async def get_joined_members(self, call: Call) -> dict[str, Any]:
        """Who is joined, with the names and avatars they carry in this room; for members only."""
        await self._complete(call)

        def profile(reader: Reader, record: EventRecord) -> tuple[str, dict[str, str]] | None:
            if not reader.joined:
                raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
            content = orjson.loads(record.content_json)
            if content.get("membership") != "join" or record.state_key is None:
                return None
            told = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
            return record.state_key, {key: value for key, value in told.items() if isinstance(value, str)}

        return {"joined": dict(await self._each(call, profile, "m.room.member", peek=False))}

    async def _each(
        self,
        call: Call,
        take: Callable[[Reader, EventRecord], T | None],
        type_: str | None = None,
        at: str | None = None,
        *,
        peek: bool = True,
    ) -> list[T]:
        """What ``take`` makes of each event of a state, but for None; in a large room a part at a time."""
        reading, room_id = self._reading, call.params["roomId"]
        with reading.log.snapshot() as snapshot:
            reader = reading.open(snapshot, call.requester, room_id, peek=peek)
            root = self._root_at(reader, at) or reader.root
        # Nodes never change: the walk may outlive the snapshot that it began with.
        ids = (event_id for _, event_id in StateMap(reading.log.get, reader.meta.nid).items(root, type_))
        taken: list[T] = []
        while part := list(islice(ids, PART)):
            with reading.log.snapshot() as snapshot:
                reader = reading.open(snapshot, call.requester, room_id, peek=peek)
                for record in filter(None, (event_by_id(snapshot, event_id) for event_id in part)):
                    made = take(reader, record)
                    if made is not None:
                        taken.append(made)
            if len(part) == PART:
                await self._pause()
        return taken

    async def _complete(self, call: Call) -> None:
        if self._whole is not None:
            await self._whole(call.params["roomId"])

    def _root_at(self, reader: Reader, at: str | None) -> bytes | None:
        """The state at a pagination token; None for the latest that the caller may see."""
        if at is None:
            return None
        token = tokens.parse(at)
        if isinstance(token, tokens.TimelineToken):
            cut = token.sequence
        else:
            cut = self._reading.cut_of_position(reader, token.position)
        if reader.departure is not None:
            cut = min(cut, reader.departure + 1)
        piece = self._reading.slice(reader, cut, None, 1, backwards=True)
        return piece.records[0].state_after if piece.records else None


def membership_of(record: EventRecord) -> str | None:
    """What a member event says."""
    membership = orjson.loads(record.content_json).get("membership")
    return membership if isinstance(membership, str) else None


def _membership(call: Call, name: str) -> str | None:
    value = call.query(name)
    if value is not None and value not in MEMBERSHIPS:
        raise MatrixError(400, "M_INVALID_PARAM", f"{name} is one of {', '.join(sorted(MEMBERSHIPS))}")
    return value
