"""Devices and keys of other servers' users put together: the copy, what keeps it right, and who asks it."""

from collections.abc import Callable, Sequence
from typing import Any

from federation.outbound.calls import Calls
from homeserver.keys.cached_keys import CachedKeys
from homeserver.keys.peer_devices import PeerDevices
from homeserver.keys.remote_keys import FederatedKeys
from homeserver.keys.resync import Resync
from homeserver.keys.tracked import Members, OurRooms, Tracked
from storage.log.append import Entry, Log


class PeerKeys:
    """``remote_keys`` answers clients, ``devices`` takes messages in, ``tracked`` knows who shares a room with us.

    Add ``follow`` to the feed behind members and hosts.
    """

    def __init__(
        self,
        server_name: str,
        log: Log,
        members: Members,
        rooms: OurRooms,
        calls: Calls,
        clock: Any,
        now_ms: Callable[[], int],
        dice: Callable[[], float],
    ) -> None:
        """``now_ms`` is a steady clock (`federation.wire.steady_time`), ``dice`` gives random numbers from 0 up to 1."""
        self.tracked = Tracked(server_name, log, members, rooms, clock.callLater)
        self.devices = PeerDevices(log, self.tracked)
        self.resync = Resync(self.devices, calls, self.tracked, clock, now_ms, dice)
        self.devices.on_stale = self.resync.wanted
        self.remote_keys = CachedKeys(FederatedKeys(calls, clock), self.devices, self.resync, self.tracked, clock)

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take released entries in."""
        self.tracked.follow(self.devices, entries)

    def start(self) -> None:
        """Go on where the last run ended."""
        self.tracked.sweep(self.devices)

    def stop(self) -> None:
        """Ask nobody any more."""
        self.tracked.stop()
        self.resync.stop()
