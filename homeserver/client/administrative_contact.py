"""Third-party identifiers of an account (Client-Server API, "Adding Account Administrative Contact Information").

Nothing here sends mail or text messages, so none can be added by their owner; what an administrator has attached to
an account is listed and can be removed.
"""

from typing import Any

import msgspec

from federation.rules.errors import MatrixError
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route
from storage.tables import users
from storage.tables.database import Database


class DeleteThreepidRequest(msgspec.Struct):
    """The body of `POST /account/3pid/delete` and `/unbind`."""

    medium: str
    address: str
    id_server: str | None = None


class ThreepidEndpoints:
    """Routes of `administrative_contact.yaml`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def routes(self) -> list[Route]:
        """The routes; those that would need an identity server or mail are left out and so `M_UNRECOGNIZED`."""
        path = "/_matrix/client/v3/account/3pid"
        return [
            Route("GET", path, self.list),
            Route("POST", f"{path}/delete", self.delete),
            Route("POST", f"{path}/email/requestToken", self.refuse, Auth.NONE),
            Route("POST", f"{path}/msisdn/requestToken", self.refuse, Auth.NONE),
        ]

    async def list(self, call: Call) -> dict[str, Any]:
        """The identifiers of the caller's account."""
        rows = await self._database.run(lambda cur: users.threepids_of(cur, call.requester.user_id))
        return {
            "threepids": [
                {"medium": r.medium, "address": r.address, "validated_at": r.validated_ts, "added_at": r.added_ts}
                for r in rows
            ]
        }

    async def delete(self, call: Call) -> dict[str, Any]:
        """Take an identifier from the caller's account; it was never bound on an identity server."""
        request, user_id = call.json(DeleteThreepidRequest), call.requester.user_id
        await self._database.run(
            lambda cur: users.delete_threepid(cur, user_id, request.medium, request.address)
        )
        return {"id_server_unbind_result": "success" if request.id_server is None else "no-support"}

    def refuse(self, call: Call) -> dict[str, Any]:
        """This server sends no mail and no text messages."""
        raise MatrixError(403, "M_THREEPID_DENIED", "This server does not take e-mail addresses or phone numbers")
