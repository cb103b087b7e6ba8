"""Messages to devices."""

from typing import Any

import msgspec

from homeserver.client.keys import device_of
from homeserver.keys.to_device import ToDevice
from homeserver.web.call import Call
from homeserver.web.limits import Limits
from homeserver.web.routes import Auth, Route


class SendRequest(msgspec.Struct):
    """`PUT /sendToDevice/{eventType}/{txnId}`."""

    messages: dict[str, dict[str, dict[str, Any]]]


class ToDeviceMessages:
    """The endpoint of `to_device.yaml`."""

    def __init__(self, to_device: ToDevice, limits: Limits) -> None:
        self._to_device = to_device
        self._limits = limits

    def routes(self) -> list[Route]:
        """The routes of this module."""
        path = "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}"
        return [Route("PUT", path, self.send, auth=Auth.GUEST)]

    async def send(self, call: Call) -> dict[str, Any]:
        """Send one event to some devices of some users."""
        requester, params = call.requester, call.params
        messages = call.json(SendRequest).messages
        if params["eventType"] == "m.room_key_request" and not requester.unlimited:
            self._limits.take("key_requests", requester.user_id)
        await self._to_device.send(
            requester.user_id, device_of(requester), params["eventType"], params["txnId"], messages
        )
        return {}
