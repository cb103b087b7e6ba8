"""Profiles: any field a person wants to show, 64 KiB in all (Client-Server API, "Profiles")."""

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from federation.rules.errors import MatrixError
from storage.tables import profiles
from storage.tables.database import Cursor, Database

MAX_PROFILE_BYTES = 65_536
MAX_KEY_BYTES = 255

MEMBER_FIELDS = ("displayname", "avatar_url")
"""The fields that are copied into `m.room.member` events."""


class ProfileObserver(Protocol):
    """What wants to know of changed profiles: the room engine, which rewrites member events."""

    async def on_profile_change(self, user_id: str, profile: dict[str, Any]) -> None:
        """``displayname`` or ``avatar_url`` changed; ``profile`` is the whole new profile.

        Called after the commit, one change of a user after the other.
        """


class Profiles:
    """Profiles of local users. Set ``observer`` to have changes reach member events."""

    def __init__(self, database: Database) -> None:
        self.observer: ProfileObserver | None = None
        self._database = database

    async def get(self, user_id: str) -> dict[str, Any]:
        """The whole profile. Raises MatrixError 404 M_NOT_FOUND for users that don't exist or are deactivated."""
        stored = await self._database.run_single(lambda cur: profiles.profile(cur, user_id))
        if stored is None:
            raise _not_found()
        return orjson.loads(stored)


    async def member_content(self, user_id: str) -> dict[str, Any]:
        """What of the profile goes into member events; empty for users that don't exist."""
        stored = await self._database.run_single(lambda cur: profiles.profile(cur, user_id))
        profile = {} if stored is None else orjson.loads(stored)
        return {key: profile[key] for key in MEMBER_FIELDS if key in profile}

    async def set_field(self, user_id: str, key: str, value: Any) -> None:
        """Set one field. Raises MatrixError 400 M_KEY_TOO_LARGE, M_PROFILE_TOO_LARGE, M_INVALID_PARAM."""
        _check_field(key, value)

        def change(profile: dict[str, Any]) -> None:
            if key in MEMBER_FIELDS and not value:  # how clients have always unset them
                profile.pop(key, None)
            else:
                profile[key] = value

        await self._change(user_id, key, change)

    async def delete_field(self, user_id: str, key: str) -> None:
        """Remove one field; without effect when it isn't there."""
        _check_key(key)
        await self._change(user_id, key, lambda profile: profile.pop(key, None))

    async def _change(self, user_id: str, key: str, change: Callable[[dict[str, Any]], object]) -> None:
        def work(cur: Cursor) -> dict[str, Any] | None:
            stored = profiles.lock_profile(cur, user_id)
            if stored is None:
                raise _not_found()
            profile = orjson.loads(stored)
            change(profile)
            encoded = orjson.dumps(profile)
            if encoded == stored:
                return None
            if len(encoded) > MAX_PROFILE_BYTES and len(encoded) > len(stored):
                raise MatrixError(400, "M_PROFILE_TOO_LARGE", f"Profiles have at most {MAX_PROFILE_BYTES} bytes")
            name = profile.get("displayname")
            searched = name.lower().replace("\0", "") if isinstance(name, str) else None
            profiles.store_profile(cur, user_id, encoded, searched)
            return profile

        profile = await self._database.run(work)
        if profile is not None and key in MEMBER_FIELDS and self.observer is not None:
            await self.observer.on_profile_change(user_id, profile)


def _check_key(key: str) -> None:
    size = len(key.encode("utf-8", "surrogatepass"))
    if size > MAX_KEY_BYTES:
        raise MatrixError(400, "M_KEY_TOO_LARGE", f"Names of profile fields have at most {MAX_KEY_BYTES} bytes")
    if size == 0 or "\0" in key:
        raise MatrixError(400, "M_INVALID_PARAM", "That is no name of a profile field")


def _check_field(key: str, value: Any) -> None:
    _check_key(key)
    if key in MEMBER_FIELDS and value is not None and not isinstance(value, str):
        raise MatrixError(400, "M_BAD_JSON", f"`{key}` has to be a string")
    if key == "displayname" and isinstance(value, str) and len(value) > 256:
        raise MatrixError(400, "M_INVALID_PARAM", "Display names have at most 256 characters")
    if key == "avatar_url" and isinstance(value, str) and len(value) > 1000:
        raise MatrixError(400, "M_INVALID_PARAM", "Avatar URLs have at most 1000 characters")


def _not_found() -> MatrixError:
    return MatrixError(404, "M_NOT_FOUND", "There is no such user here")
