"""Server-side backups of room keys."""

from typing import Annotated, Any

import msgspec
import orjson

from federation.rules.errors import MatrixError
from homeserver.keys.key_backup import KeyBackups
from homeserver.web.call import Call
from homeserver.web.routes import Route
from storage.tables.key_backups import BackupSession

_ROOT = "/_matrix/client/v3/room_keys"
_BODY_LIMIT = 8 * 1024 * 1024
MAX_ID = 255

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class CreateRequest(msgspec.Struct):
    """`POST /room_keys/version`."""

    algorithm: Annotated[str, msgspec.Meta(max_length=255)]
    auth_data: Any


class UpdateRequest(msgspec.Struct):
    """`PUT /room_keys/version/{version}`."""

    algorithm: str
    auth_data: Any
    version: str | None = None


class KeyBackupData(msgspec.Struct):
    """`KeyBackupData`: the key of one session."""

    first_message_index: _Count
    forwarded_count: _Count
    is_verified: bool
    session_data: Any


class RoomKeyBackup(msgspec.Struct):
    """`RoomKeyBackup`: the keys of one room, by session ID."""

    sessions: dict[str, KeyBackupData]


class AllKeys(msgspec.Struct):
    """`PUT /room_keys/keys`: keys by room ID."""

    rooms: dict[str, RoomKeyBackup]


class KeyBackup:
    """The endpoints of `key_backup.yaml`."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    def routes(self) -> list[Route]:
        """The routes of this module."""
        version = _ROOT + "/version/{version}"
        routes = [
            Route("POST", _ROOT + "/version", self.create),
            Route("GET", _ROOT + "/version", self.current),
            Route("GET", version, self.get_version),
            Route("PUT", version, self.update),
            Route("DELETE", version, self.delete),
        ]
        for tail in "/keys", "/keys/{roomId}", "/keys/{roomId}/{sessionId}":
            routes += [
                Route("PUT", _ROOT + tail, self.put_keys, body_limit=_BODY_LIMIT),
                Route("GET", _ROOT + tail, self.get_keys),
                Route("DELETE", _ROOT + tail, self.delete_keys),
            ]
        return routes

    async def create(self, call: Call) -> dict[str, Any]:
        """Begin a new backup."""
        body = call.json(CreateRequest)
        version = await self._backups.create(call.requester.user_id, body.algorithm, body.auth_data)
        return {"version": version}

    async def current(self, call: Call) -> dict[str, Any]:
        """The newest backup."""
        return await self._backups.current(call.requester.user_id)

    async def get_version(self, call: Call) -> dict[str, Any]:
        """One backup."""
        return await self._backups.get(call.requester.user_id, call.params["version"])

    async def update(self, call: Call) -> dict[str, Any]:
        """Replace a backup's `auth_data`."""
        version = call.params["version"]
        body = call.json(UpdateRequest)
        if body.version is not None and body.version != version:
            raise MatrixError(400, "M_INVALID_PARAM", "The version in the body is not the one in the path")
        await self._backups.update(call.requester.user_id, version, body.algorithm, body.auth_data)
        return {}

    async def delete(self, call: Call) -> dict[str, Any]:
        """Delete a backup and its keys."""
        await self._backups.delete(call.requester.user_id, call.params["version"])
        return {}

    async def put_keys(self, call: Call) -> dict[str, Any]:
        """Store one key, keys of a room, or keys of several rooms."""
        version = _version(call)
        return await self._backups.store(call.requester.user_id, version, _sessions(call))

    async def get_keys(self, call: Call) -> dict[str, Any]:
        """One key, the keys of a room, or all keys."""
        room_id, session_id = call.params.get("roomId"), call.params.get("sessionId")
        rows = await self._backups.sessions(call.requester.user_id, _version(call), room_id, session_id)
        if session_id is not None:
            if not rows:
                raise MatrixError(404, "M_NOT_FOUND", "Key not found.")
            return _data(rows[0])
        rooms: dict[str, dict[str, Any]] = {}
        for row in rows:
            rooms.setdefault(row.room_id, {"sessions": {}})["sessions"][row.session_id] = _data(row)
        return {"rooms": rooms} if room_id is None else rooms.get(room_id, {"sessions": {}})

    async def delete_keys(self, call: Call) -> dict[str, Any]:
        """Delete one key, the keys of a room, or all keys."""
        params = call.params
        return await self._backups.remove(
            call.requester.user_id, _version(call), params.get("roomId"), params.get("sessionId")
        )


def _version(call: Call) -> str:
    version = call.query("version")
    if version is None:
        raise MatrixError(400, "M_MISSING_PARAM", "The query parameter 'version' has to be given")
    return version


def _sessions(call: Call) -> list[BackupSession]:
    """The keys in the body, whose form depends on how much of the path is given."""
    room_id, session_id = call.params.get("roomId"), call.params.get("sessionId")
    if room_id is None:
        rooms = call.json(AllKeys).rooms
    elif session_id is None:
        rooms = {room_id: call.json(RoomKeyBackup)}
    else:
        rooms = {room_id: RoomKeyBackup({session_id: call.json(KeyBackupData)})}
    return [_row(room, session, data) for room, keys in rooms.items() for session, data in keys.sessions.items()]


def _row(room_id: str, session_id: str, data: KeyBackupData) -> BackupSession:
    if len(room_id) > MAX_ID or len(session_id) > MAX_ID:
        raise MatrixError(400, "M_INVALID_PARAM", "The room ID or session ID is too long")
    text = orjson.dumps(data.session_data).decode()
    return BackupSession(
        room_id, session_id, data.first_message_index, data.forwarded_count, data.is_verified, text
    )


def _data(row: BackupSession) -> dict[str, Any]:
    return {
        "first_message_index": row.first_message_index,
        "forwarded_count": row.forwarded_count,
        "is_verified": row.is_verified,
        "session_data": orjson.Fragment(row.session_data_json),
    }
