"""PUT /exchange_third_party_invite and /3pid/onbind. Server-Server API, "Third-party invites"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, INVITE_LIMIT, Operation, PeerRequest
from federation.inbound.ports import ExchangesInvites


class ThirdPartyInviteEndpoints:
    """The operations of `third_party_invite.yaml`."""

    def __init__(self, rooms: ExchangesInvites) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations. Identity servers have no key that we could know: they sign nothing."""
        return [
            Operation(
                "PUT", "/_matrix/federation/v1/exchange_third_party_invite/{roomId}", self.exchange, EVENT_LIMIT
            ),
            Operation("PUT", "/_matrix/federation/v1/3pid/onbind", self.bound, INVITE_LIMIT, signed=False),
        ]

    async def exchange(self, request: PeerRequest) -> Any:
        """Make the invite that a pending one by e-mail or phone has become."""
        await self._rooms.exchange(request.origin, request.params["roomId"], request.object())
        return {}

    async def bound(self, request: PeerRequest) -> Any:
        """A user of ours has bound an address that invites wait for."""
        body = request.object()
        await self._rooms.bound(body.get("mxid"), body.get("invites"))
        return {}
