"""A server of the town that is a policy server: it signs what it likes and refuses the rest."""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from federation.inbound.operation import Operation, PeerRequest
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.hashes import encode_base64
from federation.rules.signing import POLICY_KEY_ID, SigningKey
from homeserver.web.limits import Limits
from homeserver.web.peer_routes import peer_routes
from homeserver.web.router import Router
from tests.fakes.town import Town, Twin


class PolicyTwin(Twin):
    """A whole server, so that it can be in rooms; ``asked`` has the type of every event that it was asked about."""

    def __init__(self, town: Town, name: str = "police") -> None:
        super().__init__(town, name)
        town.servers[name] = self
        self.policy_key = SigningKey.from_seed(b"policy".ljust(32, b"-"), name, POLICY_KEY_ID)
        self.asked: list[str] = []
        self.refuses: Callable[[Event], bool] = lambda event: "spam" in str(event.content.get("body"))
        self.error = MatrixError(400, "M_FORBIDDEN", "That looks like spam")
        self.takes = 0.0
        """Seconds before it answers."""
        self.meanwhile: Callable[[], Any] = lambda: None
        """Done while it thinks."""
        operations = [Operation("POST", "/_matrix/policy/v1/sign", self._sign)]
        routes = [*self.routes, *peer_routes(operations, self.keys)]  # type: ignore[arg-type]
        self.router = Router(routes, None, Limits({}, town.clock.seconds))  # type: ignore[arg-type]

    @property
    def content(self) -> dict[str, Any]:
        """Of the m.room.policy that names this server."""
        return {"via": self.name, "public_keys": {"ed25519": encode_base64(bytes(self.policy_key.verify_key))}}

    def signature(self, event: Event) -> dict[str, dict[str, str]]:
        return {self.name: {POLICY_KEY_ID: encode_base64(self.policy_key.sign(event.signed_bytes))}}

    async def _sign(self, request: PeerRequest) -> Any:
        pdu = request.object()
        version = next(room.version for name in self.town.servers.values() if (room := name.rooms.find(pdu["room_id"])))
        event = Event.from_pdu(pdu, version)
        self.asked.append(event.type)
        self.meanwhile()
        await deferLater(self.town.clock, self.takes)  # type: ignore[arg-type]
        if self.refuses(event):
            raise self.error
        return self.signature(event)
