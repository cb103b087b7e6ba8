"""Every service of a homeserver, made from the opened stores and introduced to the others.

Several homeservers may live in one process: nothing here or below is kept at module level.
"""

from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any

from config.schema import Config
from federation.rules.signing import SigningKey
from federation.wire.network import Network
from homeserver.accounts.assembly import Accounts
from homeserver.accounts.assembly import assemble as assemble_accounts
from homeserver.accounts.deactivation import ACCOUNT_DEACTIVATED
from homeserver.client.open_polls import OpenPolls
from homeserver.federation import Federation
from homeserver.feed import Feed
from homeserver.keys.bring import DeviceChanges
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.outbox_follower import OutboxFollower
from homeserver.keys.remote import NoRemoteKeys
from homeserver.keys.to_device import ToDevice
from homeserver.push.push_rules import PushRules
from homeserver.push.unread import Unread
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.deletion import Deletion
from homeserver.rooms.departures import Departures
from homeserver.rooms.guests import GuestsLeaving
from homeserver.rooms.membership import Membership
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.overview import Overviews
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.read import Reading
from homeserver.rooms.room import Rooms
from homeserver.rooms.sight import Sights
from homeserver.rooms.watch import RoomWatch
from homeserver.sync.assembly import assemble_sync
from homeserver.sync.filter_store import FilterStore
from homeserver.upkeep import Upkeep
from homeserver.web.limits import Limits
from homeserver.web.rates import rates_of
from storage.log.append import Batch, Kind, Log
from storage.tables.database import Database


class Services:
    """What a homeserver does, below its operations: the stores, and all that works upon them."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        log: Log,
        database: Database,
        signing_keys: list[SigningKey],
        now_ms: Callable[[], int],
        *,
        network: Network | None = None,
        chance: Random | None = None,
    ) -> None:
        """``network`` is the way to other servers, ``chance`` the source of random numbers; the system's by default."""
        chance = chance or SystemRandom()
        self.config = config
        self.reactor = reactor
        self.log = log
        self.database = database
        self.now_ms = now_ms
        self.limits = Limits(rates_of(config), reactor.seconds)
        self.memberships = Memberships(log)
        self.feed = Feed(reactor, self.memberships, log.position)
        self.feed.follow(self.memberships.follow)
        log.on_release = self.feed.release
        self.accounts: Accounts = assemble_accounts(database, reactor, config, self.limits, now_ms)
        self.rooms = Rooms(log, config.server_name, signing_keys[0], now_ms, chance)
        self.aliases = Aliases(log)
        self.sights = Sights()
        self.reading = Reading(log, self.sights, now_ms)
        self.overviews = Overviews()
        self.feed.follow(self.overviews.follow)
        self.feed.follow(GuestsLeaving(self.rooms, reactor.callLater).follow)
        self.departures = Departures(self.rooms, reactor.callLater)
        self.deletion = Deletion(self.rooms, reactor)
        self.membership = Membership(self.rooms, self.aliases, self.accounts.profiles, limits=self.limits)
        self.accounts.profiles.observer = self.membership
        self.accounts.registration.on_upgraded.append(self.membership.on_guest_upgrade)
        self.upkeep = Upkeep(log, database, reactor, now_ms, config.limits.max_inbox_size)
        self.federation: Federation | None = None
        if config.enable_federation:
            self.federation = Federation(
                config, reactor, log, database, signing_keys, now_ms, self.rooms, self.membership, self.memberships,
                chance, network,
            )
        self._make_keys()
        self.push_rules = PushRules(log)
        self.unread = Unread(self.push_rules, lambda room_id: self.rooms.get(room_id).power_levels)
        self.sync = assemble_sync(
            log=log,
            feed=self.feed,
            memberships=self.memberships,
            sights=self.sights,
            key_counts=self.key_counts,
            device_lists=self.device_lists,
            unread=self.unread,
            push_rules=self.push_rules,
            clock=reactor,
            now_ms=now_ms,
            presence_enabled=config.presence.enabled,
        )
        if self.federation is not None:
            self.federation.connect(
                feed=self.feed,
                keys=self.key_cache,
                devices=self.device_directory,
                typing=self.sync.typing,
                presence=self.sync.presence,
            )
            self.federation.take_part(self.deletion)
        self.deletion.forget += [
            self.memberships.forget_room,
            self.unread.forget_room,
            lambda room_id: self.sights.forget_places(),
        ]
        self.public_rooms = PublicRooms(log, self.aliases, self.overviews)
        self.accounts.devices.on_deleted.append(self.sync.presence.device_gone)
        self.filters = FilterStore(database)
        self.old_polls = OpenPolls()
        self.room_watch = RoomWatch(reactor)
        self.feed.follow(self.room_watch.follow)
        self.accounts.authenticator.on_revoked += [self.sync.longpoll.revoked, self.old_polls.revoked]
        self.accounts.authenticator.on_locked += [self.sync.longpoll.locked, self.old_polls.locked]

    def _make_keys(self) -> None:
        """End-to-end encryption: what is known of devices and their keys, and the way of its changes into the log."""
        database, log = self.database, self.log
        self.key_cache = KeyCache(database)
        self.key_counts = KeyCountCache(database)
        self.device_directory = DeviceDirectory(database)
        changes = DeviceChanges(log, self.key_cache, self.key_counts, self.device_directory)
        bring = {**changes.by_kind(), ACCOUNT_DEACTIVATED: self._deactivated}
        self.outbox = OutboxFollower(database, log, bring, self.reactor.callLater)
        database.on_outbox = self.outbox.wake
        devices = self.accounts.devices
        for observers in (devices.on_created, devices.on_deleted, devices.on_renamed):
            observers.append(self.device_directory.changed)
            observers.append(lambda user_id, _device_id: self.key_cache.changed(user_id))
        self.device_lists = DeviceListChanges(self.memberships, self.feed)
        remote = self.federation
        remote_keys = NoRemoteKeys() if remote is None else remote.remote_keys
        self.lookup = KeyLookup(
            self.config.server_name, database, self.key_cache, self.key_counts, remote_keys, self.announce_key_counts
        )
        self.to_device = ToDevice(
            self.config.server_name, log, self.device_directory, None if remote is None else remote.remote_inboxes
        )

    def _deactivated(self, batch: Batch, payload: dict[str, Any]) -> None:
        """What the log has of a deactivated user goes: some of it now, rooms and account data bit by bit."""
        self.sync.presence_memory.forget(batch, payload["user_id"])
        self.departures.bring(batch, payload)

    def announce_key_counts(self, user_id: str, device_id: str) -> None:
        """Let the device's sync say how many one-time keys it has left."""
        self.log.append_ephemeral(Kind.KEY_COUNTS, user_id=user_id, device_id=device_id)

    def start(self) -> None:
        """Begin what runs by itself."""
        self.accounts.authenticator.start()
        self.outbox.wake()
        self.upkeep.start()
        self.sync.start()
        self.departures.wake()
        self.deletion.wake()
        if self.federation is not None:
            self.federation.start()

    async def stop(self) -> None:
        """Write down what is in memory and close the stores."""
        self.upkeep.stop()
        self.outbox.stop()
        self.departures.stop()
        self.deletion.stop()
        await self.sync.stop()
        if self.federation is not None:
            await self.federation.stop()
        await self.accounts.stop()
        await self.log.close()
        await self.database.close()
