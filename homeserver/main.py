"""The only file that knows everybody: opens the stores, makes the services, introduces them, starts to listen.

Several homeservers may live in one process: nothing here or below is kept at module level.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey as Ed25519Key
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from config.data_directory import DataDirectory
from config.errors import ConfigError
from config.schema import Config
from federation.rules.signing import SigningKey, key_id_of, read_signing_keys, write_signing_keys
from homeserver.accounts.account_data import AccountData
from homeserver.accounts.assembly import Accounts
from homeserver.accounts.assembly import assemble as assemble_accounts
from homeserver.accounts.deactivation import ACCOUNT_DEACTIVATED
from homeserver.accounts.first_account import first_account_token
from homeserver.admin.register import SharedSecretRegistration
from homeserver.client.account_data import AccountDataEndpoints
from homeserver.client.account_endpoints import account_endpoints
from homeserver.client.banning import Banning
from homeserver.client.create_room import CreateRoom
from homeserver.client.cross_signing import CrossSigningKeys
from homeserver.client.directory import Directory
from homeserver.client.event_context import EventContext
from homeserver.client.filter import Filter
from homeserver.client.inviting import Inviting
from homeserver.client.joining import Joining
from homeserver.client.key_backup import KeyBackup
from homeserver.client.keys import Keys
from homeserver.client.kicking import Kicking
from homeserver.client.knocking import Knocking
from homeserver.client.leaving import Leaving
from homeserver.client.list_joined_rooms import ListJoinedRooms
from homeserver.client.list_public_rooms import ListPublicRooms
from homeserver.client.message_pagination import MessagePagination
from homeserver.client.mutual_rooms import MutualRooms
from homeserver.client.notifications import Notifications
from homeserver.client.old_sync import OldSync
from homeserver.client.open_polls import OpenPolls
from homeserver.client.peeking_events import PeekingEvents
from homeserver.client.presence import PresenceStatus
from homeserver.client.pushrules import PushRulesApi
from homeserver.client.read_markers import ReadMarkers
from homeserver.client.receipts import ReadReceipts
from homeserver.client.redaction import Redaction
from homeserver.client.report_content import ReportContent
from homeserver.client.room_event_by_timestamp import RoomEventByTimestamp
from homeserver.client.room_initial_sync import RoomInitialSync
from homeserver.client.room_send import RoomSend
from homeserver.client.room_state import RoomState
from homeserver.client.room_summary import RoomSummary
from homeserver.client.room_upgrades import RoomUpgrades
from homeserver.client.rooms import RoomsReading
from homeserver.client.sync import Sync
from homeserver.client.tags import TagEndpoints
from homeserver.client.to_device import ToDeviceMessages
from homeserver.client.typing import TypingNotifications
from homeserver.client.users import UserDirectoryEndpoints
from homeserver.client.versions import VersionsEndpoints
from homeserver.federation import Federation
from homeserver.feed import Feed
from homeserver.keys.bring import DeviceChanges
from homeserver.keys.cross_signing import CrossSigning
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_backup import KeyBackups
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.list_changes import DeviceListChanges
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.outbox_follower import OutboxFollower
from homeserver.keys.publish import KeyPublisher
from homeserver.keys.remote import NoRemoteKeys
from homeserver.keys.to_device import ToDevice
from homeserver.log_output import begin_logging
from homeserver.metrics import Metrics, Stats
from homeserver.push.notified import Notified
from homeserver.push.push_rules import PushRules
from homeserver.push.unread import Unread
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.create import Create
from homeserver.rooms.departures import Departures
from homeserver.rooms.findable import FindableUsers
from homeserver.rooms.membership import Membership
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.overview import Overviews
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.read import Reading
from homeserver.rooms.room import Rooms
from homeserver.rooms.send import Send
from homeserver.rooms.sight import Sights
from homeserver.rooms.upgrade import Upgrade
from homeserver.rooms.watch import RoomWatch
from homeserver.sync.assembly import assemble_sync
from homeserver.sync.filter_store import FilterStore
from homeserver.sync.live import LiveSync
from homeserver.sync.live_frames import LiveFrames
from homeserver.sync.room_info import RoomInfos
from homeserver.sync.stream import Code
from homeserver.upkeep import Upkeep
from homeserver.web.call import Answer
from homeserver.web.certificate import Certificate
from homeserver.web.configured import connection_limits, socket_settings, timeouts
from homeserver.web.http import HttpServer
from homeserver.web.limits import Limits
from homeserver.web.listeners import Listeners
from homeserver.web.rates import rates_of
from homeserver.web.router import Auth, Route, Router
from homeserver.web.sd_notify import ServiceNotifier
from homeserver.web.socket import SocketServer
from storage.log.append import Kind, Log
from storage.log.env import open_log
from storage.log.errors import LogRefused
from storage.tables.database import Database
from storage.tables.database_open import open_database
from storage.tables.errors import DatabaseRefused

DRAIN_SECONDS = 4.0
COMPRESS_FROM = 16 * 1024
"""Bytes of body from which an answer is compressed: below, what compression costs outweighs what it saves."""
SIGNING_KEY = "signing.key"


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)


class Homeserver:
    """One running homeserver: its stores, its services, its routes."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        log: Log,
        database: Database,
        signing_keys: list[SigningKey],
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
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
        self.rooms = Rooms(log, config.server_name, signing_keys[0], now_ms)
        self.aliases = Aliases(log)
        self.sights = Sights()
        self.reading = Reading(log, self.sights, now_ms)
        self.overviews = Overviews()
        self.feed.follow(self.overviews.follow)
        self.departures = Departures(self.rooms, reactor.callLater)
        self.membership = Membership(self.rooms, self.aliases, self.accounts.profiles)
        self.accounts.profiles.observer = self.membership
        self.upkeep = Upkeep(log, database, reactor, now_ms)
        self.federation: Federation | None = None
        if config.enable_federation:
            self.federation = Federation(
                config, reactor, log, database, signing_keys, now_ms, self.rooms, self.membership
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
                memberships=self.memberships,
                keys=self.key_cache,
                devices=self.device_directory,
                typing=self.sync.typing,
                presence=self.sync.presence,
            )
        self.public_rooms = PublicRooms(log, self.aliases, self.overviews)
        self.filters = FilterStore(database)
        self.old_polls = OpenPolls()
        self.room_watch = RoomWatch(reactor)
        self.feed.follow(self.room_watch.follow)
        self.router = Router(
            self.routes(),
            self.accounts.authenticator,
            self.limits,
            query_access_token=config.compatibility.access_token_in_query,
            body_limit=config.limits.max_request_size,
        )

        self.live = LiveSync(
            log=log,
            feed=self.feed,
            memberships=self.memberships,
            ignored=self.sync.ignored,
            reader=self.sync.reader,
            filters=self.filters,
            presence=self.sync.presence,
            unread=self.unread,
            frames=LiveFrames(log, self.sync.typing, self.sync.presence, now_ms),
            authenticator=self.accounts.authenticator,
            calls=self.router,
            clock=reactor,
            now_ms=now_ms,
            hello_timeout=config.websocket.hello_timeout / 1000,
        )
        self.accounts.authenticator.on_revoked += [
            self.sync.longpoll.revoked,
            self.live.revoked,
            self.old_polls.revoked,
        ]

    def _make_keys(self) -> None:
        """End-to-end encryption: what is known of devices and their keys, and the way of its changes into the log."""
        database, log = self.database, self.log
        self.key_cache = KeyCache(database)
        self.key_counts = KeyCountCache(database)
        self.device_directory = DeviceDirectory(database)
        changes = DeviceChanges(log, self.key_cache, self.key_counts, self.device_directory)
        bring = {**changes.by_kind(), ACCOUNT_DEACTIVATED: self.departures.bring}
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
            self.config.server_name, database, self.key_cache, self.key_counts, remote_keys, self._announce_key_counts
        )
        self.to_device = ToDevice(
            self.config.server_name, log, self.device_directory, None if remote is None else remote.remote_inboxes
        )

    def _announce_key_counts(self, user_id: str, device_id: str) -> None:
        self.log.append_ephemeral(Kind.KEY_COUNTS, user_id=user_id, device_id=device_id)

    def start(self) -> None:
        """Begin what runs by itself."""
        self.accounts.authenticator.start()
        self.outbox.wake()
        self.upkeep.start()
        self.departures.wake()
        if self.federation is not None:
            self.federation.start()

    def routes(self) -> list[Route]:
        """Every operation that this server answers."""
        return [
            Route("GET", "/health", lambda call: Answer(200, b"OK", "text/plain"), Auth.NONE),
            *VersionsEndpoints().routes(),
            *account_endpoints(
                self.accounts,
                self.database,
                self.config,
                self.limits,
                self.now_ms,
                None if self.federation is None else self.federation.reads,
            ),
            *SharedSecretRegistration(
                self.accounts.registration, self.config, lambda: self.now_ms() / 1000
            ).routes(),
            *self._room_routes(),
            *self._key_routes(),
            *self._user_routes(),
            *self._sync_routes(),
            *self._federation_routes(),
            *(Metrics(self.stats()).routes() if self.config.enable_metrics else []),
        ]

    def _federation_routes(self) -> list[Route]:
        if self.federation is None:
            return []
        return self.federation.routes(
            profiles=self.accounts.profiles,
            keys=self.key_cache,
            lookup=self.lookup,
            to_device=self.to_device,
            devices=self.device_directory,
            memberships=self.memberships,
            aliases=self.aliases,
            public_rooms=self.public_rooms,
            typing=self.sync.typing,
        )

    def stats(self) -> dict[str, Stats]:
        """Where the gauges of `/metrics` come from."""
        return {
            "log": lambda: {"position": self.log.position, "commits": self.log.groups},
            "database": self.database.stats,
            "sync": lambda: {"waiting_polls": self.feed.waiting, "sockets": self.live.connections},
        }

    def _sync_routes(self) -> list[Route]:
        sync, memberships = self.sync, self.memberships
        return [
            *Sync(self.log, sync.longpoll, self.filters, sync.presence, self.now_ms).routes(),
            *Filter(self.filters).routes(),
            *ReadReceipts(sync.receipts, memberships, sync.presence).routes(),
            *ReadMarkers(sync.receipts, memberships, sync.presence).routes(),
            *TypingNotifications(sync.typing, memberships, sync.presence).routes(),
            *PresenceStatus(sync.presence, memberships).routes(),
            *self._old_sync_routes(),
        ]

    def _old_sync_routes(self) -> list[Route]:
        reading, memberships, clock = self.reading, self.memberships, self.reactor
        infos = RoomInfos(reading, self.aliases, memberships, self.sync.presence)
        peeking = PeekingEvents(reading, self.room_watch, self.old_polls, clock)
        return [
            *RoomInitialSync(self.log, infos).routes(),
            *OldSync(reading, memberships, infos, peeking, self.feed, self.old_polls, clock).routes(),
        ]

    def _key_routes(self) -> list[Route]:
        database = self.database
        publisher = KeyPublisher(database, self.key_cache, self.key_counts, self.outbox, self._announce_key_counts)
        cross_signing = CrossSigning(database, self.key_cache, self.outbox)
        return [
            *Keys(publisher, self.lookup, self.device_lists, self.log).routes(),
            *CrossSigningKeys(cross_signing, self.accounts.interactive_auth).routes(),
            *KeyBackup(KeyBackups(database)).routes(),
            *ToDeviceMessages(self.to_device).routes(),
        ]

    def _user_routes(self) -> list[Route]:
        account_data = AccountData(self.log)
        return [
            *AccountDataEndpoints(account_data).routes(),
            *TagEndpoints(account_data).routes(),
            *PushRulesApi(self.push_rules).routes(),
            *Notifications(self.log, Notified(self.memberships, self.unread)).routes(),
        ]

    def _room_routes(self) -> list[Route]:
        config, rooms, profiles = self.config, self.rooms, self.accounts.profiles
        send = Send(rooms, self.aliases)
        create = Create(rooms, self.aliases)
        upgrade = Upgrade(rooms, self.aliases, create, profiles)
        remote = self.federation
        old_forms = config.compatibility.access_token_in_query
        return [
            *CreateRoom(create, self.membership, profiles, config.server_name, config.default_room_version).routes(),
            *Joining(self.membership).routes(),
            *Inviting(self.membership).routes(),
            *Leaving(self.membership).routes(),
            *Kicking(self.membership).routes(),
            *Banning(self.membership).routes(),
            *Knocking(self.membership).routes(),
            *ListJoinedRooms(self.memberships).routes(),
            *RoomSend(send, without_transaction=old_forms).routes(),
            *Redaction(send, without_transaction=old_forms).routes(),
            *RoomState(send, self.membership).routes(),
            *RoomUpgrades(upgrade).routes(),
            *Directory(rooms, self.aliases, None if remote is None else remote.remote).routes(),
            *ListPublicRooms(
                rooms, self.aliases, self.public_rooms, None if remote is None else remote.reads
            ).routes(),
            *RoomSummary(self.log, self.membership, self.overviews).routes(),
            *MutualRooms(self.memberships).routes(),
            *UserDirectoryEndpoints(
                self.database, FindableUsers(self.log, self.memberships, self.overviews), config
            ).routes(),
            *ReportContent(self.reading, self.database, config.server_name, self.now_ms).routes(),
            *RoomsReading(self.reading).routes(),
            *MessagePagination(self.reading, None if remote is None else remote.rooms.history).routes(),
            *EventContext(self.reading).routes(),
            *RoomEventByTimestamp(self.reading).routes(),
        ]

    async def stop(self) -> None:
        """Write down what is in memory and close the stores."""
        self.upkeep.stop()
        self.outbox.stop()
        self.departures.stop()
        self.sync.stop()
        if self.federation is not None:
            await self.federation.stop()
        await self.accounts.stop()
        await self.log.close()
        await self.database.close()


class Running:
    """A homeserver with its data directory and its listeners."""

    def __init__(
        self,
        homeserver: Homeserver,
        directory: DataDirectory,
        listeners: Listeners,
        sockets: SocketServer | None = None,
    ) -> None:
        self.homeserver = homeserver
        self._sockets = sockets
        self.listeners = listeners
        self._directory = directory

    async def stop(self) -> None:
        """Drain and stop; everything acknowledged is durable already."""
        if self._sockets is not None:
            # Not waited for: a peer that does not answer is cut with the other connections.
            self._sockets.stop(Code.RESTART, "the server restarts")
        await self.listeners.stop(DRAIN_SECONDS)
        await self.homeserver.stop()
        self._directory.release()


def signing_keys_of(config: Config, directory: Path) -> list[SigningKey]:
    """The keys of the file that the configuration names, or of the data directory's own, made at the first start."""
    path = Path(config.signing_key_path) if config.signing_key_path else directory / SIGNING_KEY
    if path.exists():
        try:
            keys = read_signing_keys(path.read_text("ascii"), config.server_name)
        except (ValueError, OSError) as problem:
            raise ConfigError([f"The signing key {path} cannot be read: {problem}"]) from problem
        if not keys:
            raise ConfigError([f"No signing key in {path}: restore it, or delete the file to start with a new one"])
        return keys
    if config.signing_key_path:
        raise ConfigError([f"signing_key_path: {path} does not exist; leave the setting out to have a key made"])
    seed = os.urandom(32)
    key = SigningKey.from_seed(seed, config.server_name, key_id_of(bytes(Ed25519Key(seed).verify_key)))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(write_signing_keys([key]))
        out.flush()
        os.fsync(out.fileno())
    return [key]


async def start(config: Config, reactor: Any, now_ms: Callable[[], int] = wall_clock_ms) -> Running:
    """Open everything and listen. Raises ConfigError, LogRefused or DatabaseRefused, which say what to do."""
    directory = DataDirectory(Path(config.data_dir))
    try:
        if config.registration_shared_secret is None:
            # For `folkmoot register-user`, which reads it from the data directory.
            config = replace(config, registration_shared_secret=directory.registration_secret())
        signing_keys = signing_keys_of(config, directory.path)
        database = await open_database(config.database, directory.path, reactor, config.database_connections)
        try:
            log = open_log(directory.path / "log", reactor)
        except BaseException:
            await database.close()
            raise
        homeserver = Homeserver(config, reactor, log, database, signing_keys, now_ms)
        sockets = None
        if config.websocket.enabled:
            sockets = SocketServer(homeserver.live, socket_settings(config), reactor)
        server = HttpServer(
            homeserver.router,
            reactor,
            timeouts(config),
            connection_limits(config),
            compress_from=COMPRESS_FROM,
            upgrades=sockets,
            now_ms=now_ms,
        )
        certificate = None
        if config.tls_certificate_path and config.tls_private_key_path:
            certificate = Certificate(config.tls_certificate_path, config.tls_private_key_path)
        listeners = Listeners(reactor, server, config.listeners, certificate)
        try:
            homeserver.start()
            listeners.start()
        except BaseException:
            await homeserver.stop()
            raise
        return Running(homeserver, directory, listeners, sockets)
    except BaseException:
        directory.release()
        raise


async def _announce(running: Running, out: Any) -> None:
    """The ready line, and for a server without accounts how to make the first one."""
    homeserver = running.homeserver
    where = ", ".join(running.listeners.urls)
    token = await first_account_token(homeserver.database, homeserver.now_ms)
    print(f"Folkmoot is ready: {homeserver.config.server_name} at {where}", file=out, flush=True)
    if token is not None:
        print(
            "There are no accounts yet. The first one becomes the administrator; make it in any Matrix client "
            f"with this registration token: {token}",
            file=out,
            flush=True,
        )


def run(config: Config) -> int:
    """Run a server until SIGTERM or SIGINT; the process's exit status."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    begin_logging(config)
    notify = ServiceNotifier()
    report = Logger(namespace="folkmoot")
    status = 0
    running: Running | None = None

    async def begin() -> None:
        nonlocal status, running
        try:
            running = await start(config, reactor)
        except (ConfigError, DatabaseRefused, LogRefused, CannotListenError) as problem:
            print(f"folkmoot: {problem}", file=sys.stderr)
            status = 1
            reactor.stop()
            return
        running.homeserver.log.on_failure = fail
        await _announce(running, sys.stdout)
        notify.ready()

    def fail(error: BaseException) -> None:
        # After a failed sync the kernel may have dropped what it could not write: nothing that this process
        # remembers is to be trusted, so that the next start reads what is really there.
        nonlocal status
        report.critical("the log cannot be written ({error!r}): stopping", error=error)
        status = 1
        reactor.callLater(0, ask_to_stop)

    stopping = False

    def ask_to_stop() -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            notify.stopping()
            defer.ensureDeferred(end()).addErrback(lambda failure: report.failure("stopping", failure))

    async def end() -> None:
        try:
            if running is not None:
                await running.stop()
        finally:
            reactor.stop()

    def reload() -> None:
        if running is not None:
            running.listeners.reload_certificate()

    def handle(number: int, frame: Any) -> None:
        reactor.callFromThread(ask_to_stop if number != signal.SIGHUP else reload)

    def install() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, handle)
        defer.ensureDeferred(begin()).addErrback(crash)

    def crash(failure: Any) -> None:
        nonlocal status
        report.failure("the server could not start", failure)
        print(f"folkmoot: {failure.value!r}", file=sys.stderr)
        status = 1
        reactor.stop()

    reactor.callWhenRunning(install)
    reactor.run(installSignalHandlers=False)
    return status
