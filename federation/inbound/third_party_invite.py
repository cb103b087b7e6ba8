"""PUT /exchange_third_party_invite. Server-Server API, "Third-party invites"."""

from typing import Any

from federation.inbound.operation import EVENT_LIMIT, Operation, PeerRequest
from federation.inbound.ports import LetsIn


class ThirdPartyInviteEndpoints:
    """`exchangeThirdPartyInvite` of `third_party_invite.yaml`."""

    def __init__(self, rooms: LetsIn) -> None:
        self._rooms = rooms

    def operations(self) -> list[Operation]:
        """The operations."""
        path = "/_matrix/federation/v1/exchange_third_party_invite/{roomId}"
        return [Operation("PUT", path, self.exchange, EVENT_LIMIT)]

    async def exchange(self, request: PeerRequest) -> Any:
        """Make the invite that a pending one by e-mail or phone has become."""
        await self._rooms.exchange(request.origin, request.params["roomId"], request.object())
        return {}
