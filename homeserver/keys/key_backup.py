"""Server-side backups of room keys, encrypted by the client (Client-Server API, "Server-side key backups")."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import orjson
from psycopg2.extensions import cursor as Cursor

from federation.rules.errors import MatrixError
from storage.tables import key_backups
from storage.tables.database import Database
from storage.tables.key_backups import BackupSession, BackupVersion

T = TypeVar("T")


class KeyBackups:
    """The backups of local users. A ``version`` is the text that a client gave: an unknown one raises 404."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: str, algorithm: str, auth_data: Any) -> str:
        """Begin a new backup, which becomes the current one; returns its version."""
        text = orjson.dumps(auth_data).decode()
        return str(await self._database.run(lambda cur: key_backups.create_version(cur, user_id, algorithm, text)))

    async def current(self, user_id: str) -> dict[str, Any]:
        """Description of the newest backup. Raises MatrixError 404 when there is none."""
        row = await self._database.run_single(lambda cur: key_backups.current_version(cur, user_id))
        if row is None:
            raise MatrixError(404, "M_NOT_FOUND", "No current backup version")
        return _description(row)

    async def get(self, user_id: str, version: str) -> dict[str, Any]:
        """Description of one backup."""
        number = _number(version)
        row = await self._database.run_single(lambda cur: key_backups.backup_version(cur, user_id, number))
        return _description(_existing(row))

    async def update(self, user_id: str, version: str, algorithm: str, auth_data: Any) -> None:
        """Replace the algorithm's data; 400 M_INVALID_PARAM when the algorithm is another one."""
        text = orjson.dumps(auth_data).decode()

        def work(cur: Cursor, row: BackupVersion) -> None:
            if row.algorithm != algorithm:
                raise MatrixError(400, "M_INVALID_PARAM", "Algorithm does not match")
            key_backups.set_auth_data(cur, user_id, row.version, text)

        await self._locked(user_id, version, work)

    async def delete(self, user_id: str, version: str) -> None:
        """Remove a backup with its keys. Deleting it again is no error."""
        number = _number(version)

        def work(cur: Cursor) -> None:
            if key_backups.backup_version(cur, user_id, number, lock=True) is None:
                raise MatrixError(404, "M_NOT_FOUND", "Unknown backup version")
            key_backups.delete_version(cur, user_id, number)

        await self._database.run(work)

    async def store(self, user_id: str, version: str, sessions: Sequence[BackupSession]) -> dict[str, Any]:
        """Keep those keys that are better than the stored ones; the `RoomKeysUpdateResponse`.

        Raises MatrixError 403 M_WRONG_ROOM_KEYS_VERSION unless the version is the current one.
        """

        def work(cur: Cursor, row: BackupVersion) -> tuple[int, int]:
            newest = key_backups.current_version(cur, user_id)
            if newest is not None and newest.version != row.version:
                raise MatrixError(
                    403, "M_WRONG_ROOM_KEYS_VERSION", "Wrong backup version.", current_version=str(newest.version)
                )
            return key_backups.store_sessions(cur, user_id, row.version, sessions) if sessions else row[3:5]

        return _update_response(await self._locked(user_id, version, work))

    async def remove(
        self, user_id: str, version: str, room_id: str | None, session_id: str | None
    ) -> dict[str, Any]:
        """Delete one key, those of a room, or all; the `RoomKeysUpdateResponse`."""

        def work(cur: Cursor, row: BackupVersion) -> tuple[int, int]:
            return key_backups.delete_sessions(cur, user_id, row.version, room_id, session_id)

        return _update_response(await self._locked(user_id, version, work))

    async def sessions(
        self, user_id: str, version: str, room_id: str | None, session_id: str | None
    ) -> list[BackupSession]:
        """The keys asked for, possibly none."""
        number = _number(version)

        def work(cur: Cursor) -> list[BackupSession]:
            _existing(key_backups.backup_version(cur, user_id, number))
            return key_backups.sessions_of(cur, user_id, number, room_id, session_id)

        return await self._database.run(work)

    async def _locked(self, user_id: str, version: str, work: Callable[[Cursor, BackupVersion], T]) -> T:
        number = _number(version)
        return await self._database.run(
            lambda cur: work(cur, _existing(key_backups.backup_version(cur, user_id, number, lock=True)))
        )


def _number(version: str) -> int:
    if not (version.isascii() and version.isdigit() and len(version) <= 18):
        raise MatrixError(404, "M_NOT_FOUND", "Unknown backup version")
    return int(version)


def _existing(row: BackupVersion | None) -> BackupVersion:
    if row is None or row.deleted:
        raise MatrixError(404, "M_NOT_FOUND", "Unknown backup version")
    return row


def _description(row: BackupVersion) -> dict[str, Any]:
    return {
        "version": str(row.version),
        "algorithm": row.algorithm,
        "auth_data": orjson.Fragment(row.auth_data_json),
        "etag": str(row.etag),
        "count": row.key_count,
    }


def _update_response(etag_and_count: tuple[int, int]) -> dict[str, Any]:
    etag, count = etag_and_count
    return {"etag": str(etag), "count": count}
