"""`/.well-known/matrix/support` (Client-Server API, "Server Discovery")."""

from typing import Any

from config.schema import Config, Support
from federation.rules.errors import MatrixError
from homeserver.web.call import Call
from homeserver.web.router import Auth, Route


class SupportEndpoints:
    """Routes of `support.yaml`."""

    def __init__(self, config: Config) -> None:
        self._support = config.support or Support()

    def routes(self) -> list[Route]:
        """The routes."""
        return [Route("GET", "/.well-known/matrix/support", self.support, Auth.NONE)]

    def support(self, call: Call) -> dict[str, Any]:
        """Whom to ask for help; 404 when the operator names nobody (`support`)."""
        contacts = [
            {
                key: value
                for key, value in (
                    ("matrix_id", contact.matrix_id), ("email_address", contact.email_address), ("role", contact.role),
                )
                if value is not None
            }
            for contact in self._support.contacts
        ]  # fmt: skip
        body: dict[str, Any] = {"contacts": contacts} if contacts else {}
        if self._support.support_page is not None:
            body["support_page"] = self._support.support_page
        if not body:
            raise MatrixError(404, "M_NOT_FOUND", "This server publishes no support information")
        return body
