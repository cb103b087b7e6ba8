"""`/account/whoami` (Client-Server API, "Current account information")."""

from typing import Any

from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class WhoamiEndpoints:
    """Routes of `whoami.yaml`."""

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("GET", "/_matrix/client/v3/account/whoami", self.whoami, Auth.GUEST)]

    def whoami(self, call: Call) -> dict[str, Any]:
        """Whose token it is."""
        requester = call.requester
        body: dict[str, Any] = {"user_id": requester.user_id, "is_guest": requester.is_guest}
        if requester.device_id is not None:
            body["device_id"] = requester.device_id
        return body
