"""Profiles (Client-Server API, "Profiles")."""

from typing import Any, Protocol

from federation.rules.errors import MatrixError
from homeserver.accounts.profiles import MEMBER_FIELDS, Profiles
from homeserver.accounts.user_names import check_user_id, is_local
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route

PROFILE_LIMIT = "profile"


class RemoteProfiles(Protocol):
    """Profiles of users of other servers."""

    async def get(self, user_id: str) -> dict[str, Any]:
        """The whole profile. Raises MatrixError 404 M_NOT_FOUND."""


class ProfileEndpoints:
    """Routes of `profile.yaml`. Without ``remote`` there are only local users."""

    def __init__(self, profiles: Profiles, server_name: str, remote: RemoteProfiles | None = None) -> None:
        self._profiles = profiles
        self._server_name = server_name
        self._remote = remote

    def routes(self) -> list[Route]:
        """The routes. Profiles are public, as the specification has it."""
        whole = "/_matrix/client/v3/profile/{userId}"
        return [
            Route("GET", whole, self.get, Auth.NONE),
            Route("GET", f"{whole}/{{keyName}}", self.get_field, Auth.NONE),
            Route("PUT", f"{whole}/{{keyName}}", self.put_field, Auth.GUEST, limit=PROFILE_LIMIT),
            Route("DELETE", f"{whole}/{{keyName}}", self.delete_field, Auth.GUEST, limit=PROFILE_LIMIT),
        ]

    async def get(self, call: Call) -> dict[str, Any]:
        """The whole profile of a user."""
        return await self._profile(call.params["userId"])

    async def get_field(self, call: Call) -> dict[str, Any]:
        """One field of the profile of a user."""
        key = call.params["keyName"]
        profile = await self._profile(call.params["userId"])
        if key not in profile:
            if key in MEMBER_FIELDS:
                return {}  # clients of long standing ask every user for a name and an avatar, and take this for "none"
            raise MatrixError(404, "M_NOT_FOUND", "The profile has no such field")
        return {key: profile[key]}

    async def put_field(self, call: Call) -> dict[str, Any]:
        """Set one field of the caller's own profile."""
        user_id, key = self._own(call), call.params["keyName"]
        body = call.json_object()
        if key not in body:
            raise MatrixError(400, "M_MISSING_PARAM", "The body has no property with the name of the field")
        await self._profiles.set_field(user_id, key, body[key])
        return {}

    async def delete_field(self, call: Call) -> dict[str, Any]:
        """Remove one field of the caller's own profile."""
        await self._profiles.delete_field(self._own(call), call.params["keyName"])
        return {}

    async def _profile(self, user_id: str) -> dict[str, Any]:
        check_user_id(user_id)
        if is_local(user_id, self._server_name):
            return await self._profiles.get(user_id)
        if self._remote is None:
            raise MatrixError(404, "M_NOT_FOUND", "There is no such user here")
        return await self._remote.get(user_id)

    def _own(self, call: Call) -> str:
        user_id = call.params["userId"]
        if user_id != call.requester.user_id:
            raise MatrixError(403, "M_FORBIDDEN", "Only one's own profile can be changed")
        if call.requester.is_guest and call.params["keyName"] != "displayname":
            raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests can change their display name and nothing else")
        return user_id
