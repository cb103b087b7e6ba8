"""Which member events a device has been sent, so that lazy loading need not repeat them.

Specification: Client-Server API, "Lazy-loading room members": a server may leave out members that it believes the
client knows. It is only a belief: the memory is bounded, lost on restart, and forgetting costs nothing but bytes.
"""

from collections import OrderedDict

MAX_DEVICES = 5_000
MAX_MEMBERS = 2_000
"""Members remembered for one device, over all its rooms."""


class SentMembers:
    """For each device: (room, user) → event id of the member event it was sent last."""

    def __init__(self, max_devices: int = MAX_DEVICES, max_members: int = MAX_MEMBERS) -> None:
        self._devices: OrderedDict[tuple[str, str], OrderedDict[tuple[str, str], str]] = OrderedDict()
        self._max_devices = max_devices
        self._max_members = max_members

    def forget(self, user_id: str, device_id: str) -> None:
        """The device begins afresh: it holds nothing."""
        self._devices.pop((user_id, device_id), None)

    def knows(self, user_id: str, device_id: str, room_id: str, member: str, event_id: str) -> bool:
        """Whether the device was sent exactly this member event."""
        device = self._devices.get((user_id, device_id))
        return device is not None and device.get((room_id, member)) == event_id

    def sent(self, user_id: str, device_id: str, room_id: str, member: str, event_id: str) -> None:
        """The device is being sent this member event."""
        key = (user_id, device_id)
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = OrderedDict()
            if len(self._devices) > self._max_devices:
                self._devices.popitem(last=False)
        else:
            self._devices.move_to_end(key)
        device[room_id, member] = event_id
        device.move_to_end((room_id, member))
        if len(device) > self._max_members:
            device.popitem(last=False)
