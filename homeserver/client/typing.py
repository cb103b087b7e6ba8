"""Typing notifications (Client-Server API, module "Typing Notifications")."""

from typing import Any, Protocol

import msgspec

from federation.rules.errors import MatrixError
from homeserver.client.filter import own_user
from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.typing import DEFAULT_TIMEOUT_MS, Typing
from homeserver.web.call import Call
from homeserver.web.router import Route


class TypingRequest(msgspec.Struct):
    """`PUT /rooms/{roomId}/typing/{userId}`; ``timeout`` in milliseconds."""

    typing: bool
    timeout: int | None = None


class JoinedUsers(Protocol):
    """Who is joined where."""

    def is_joined(self, user_id: str, room_id: str) -> bool:
        """Whether the user is joined to the room."""


class TypingNotifications:
    """The endpoint of `typing.yaml`."""

    def __init__(self, typing: Typing, memberships: JoinedUsers, presence: Presence) -> None:
        self._typing = typing
        self._memberships = memberships
        self._presence = presence

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/rooms/{roomId}/typing/{userId}"
        return [Route("PUT", path, self.set_typing, body_limit=4096)]

    def set_typing(self, call: Call) -> dict[str, Any]:
        """The user starts, goes on or stops typing."""
        user_id = own_user(call)
        room_id = call.params["roomId"]
        body = call.json(TypingRequest)
        require_joined(self._memberships, user_id, room_id)
        self._presence.active(user_id)
        if body.typing:
            self._typing.start(room_id, user_id, DEFAULT_TIMEOUT_MS if body.timeout is None else body.timeout)
        else:
            self._typing.stop(room_id, user_id)
        return {}


def require_joined(memberships: JoinedUsers, user_id: str, room_id: str) -> None:
    """Raise MatrixError 403 ``M_FORBIDDEN`` unless the user is joined to the room."""
    if not memberships.is_joined(user_id, room_id):
        raise MatrixError(403, "M_FORBIDDEN", "You are not in this room")
