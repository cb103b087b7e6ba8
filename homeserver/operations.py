"""Every operation that a homeserver answers, made from its services."""

from functools import partial

from twisted.internet.task import deferLater

from homeserver.accounts.account_data import AccountData
from homeserver.admin.peers import PeerOperations
from homeserver.admin.pins import PinOperations
from homeserver.admin.register import SharedSecretRegistration
from homeserver.admin.room_deletion import RoomDeletion
from homeserver.admin.room_operations import RoomOperations
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
from homeserver.keys.cross_signing import CrossSigning
from homeserver.keys.key_backup import KeyBackups
from homeserver.keys.publish import KeyPublisher
from homeserver.push.notified import Notified
from homeserver.rooms.create import Create
from homeserver.rooms.findable import FindableUsers
from homeserver.rooms.send import Send
from homeserver.rooms.upgrade import Upgrade
from homeserver.services import Services
from homeserver.sync.room_info import RoomInfos
from homeserver.web.call import Answer
from homeserver.web.router import Auth, Route
from storage.log.append import Log


def _health(log: Log) -> Answer:
    """Whether the server can do its work."""
    if log.failed is not None or log.stalled:
        return Answer(503, b"The log cannot be written", "text/plain")
    return Answer(200, b"OK", "text/plain")


def operations_of(services: Services) -> list[Route]:
    """Every operation that this server answers."""
    return [
        Route("GET", "/health", lambda call: _health(services.log), Auth.NONE),
        *VersionsEndpoints().routes(),
        *account_endpoints(
            services.accounts,
            services.database,
            services.config,
            services.limits,
            services.now_ms,
            None if services.federation is None else services.federation.reads,
        ),
        *SharedSecretRegistration(
            services.accounts.registration, services.config, lambda: services.now_ms() / 1000
        ).routes(),
        *RoomDeletion(services.deletion).routes(),
        *_room_routes(services),
        *_key_routes(services),
        *_user_routes(services),
        *_sync_routes(services),
        *_federation_routes(services),
    ]


def _federation_routes(services: Services) -> list[Route]:
    if services.federation is None:
        return []
    return services.federation.routes(
        profiles=services.accounts.profiles,
        keys=services.key_cache,
        lookup=services.lookup,
        to_device=services.to_device,
        devices=services.device_directory,
        aliases=services.aliases,
        public_rooms=services.public_rooms,
        typing=services.sync.typing,
    )


def _sync_routes(services: Services) -> list[Route]:
    sync, memberships = services.sync, services.memberships
    return [
        *Sync(services.log, sync.longpoll, services.filters, sync.presence, services.now_ms).routes(),
        *Filter(services.filters).routes(),
        *ReadReceipts(sync.receipts, memberships, sync.presence).routes(),
        *ReadMarkers(sync.receipts, memberships, sync.presence).routes(),
        *TypingNotifications(sync.typing, memberships, sync.presence).routes(),
        *PresenceStatus(sync.presence, sync.presence_memory, memberships).routes(),
        *_old_sync_routes(services),
    ]


def _old_sync_routes(services: Services) -> list[Route]:
    reading, memberships, clock = services.reading, services.memberships, services.reactor
    infos = RoomInfos(reading, services.aliases, memberships, services.sync.presence)
    peeking = PeekingEvents(reading, services.room_watch, services.old_polls, clock)
    return [
        *RoomInitialSync(services.log, infos).routes(),
        *OldSync(reading, memberships, infos, peeking, services.feed, services.old_polls, clock).routes(),
    ]


def _key_routes(services: Services) -> list[Route]:
    database = services.database
    publisher = KeyPublisher(database, services.key_cache, services.key_counts, services.outbox, services.announce_key_counts)
    cross_signing = CrossSigning(database, services.key_cache, services.outbox, services.lookup.remote_masters)
    return [
        *Keys(publisher, services.lookup, services.device_lists, services.log).routes(),
        *CrossSigningKeys(cross_signing, services.accounts.interactive_auth).routes(),
        *KeyBackup(KeyBackups(database)).routes(),
        *ToDeviceMessages(services.to_device, services.limits).routes(),
    ]


def _user_routes(services: Services) -> list[Route]:
    account_data = AccountData(services.log)
    return [
        *AccountDataEndpoints(account_data).routes(),
        *TagEndpoints(account_data).routes(),
        *PushRulesApi(services.push_rules).routes(),
        *Notifications(services.log, Notified(services.memberships, services.unread)).routes(),
    ]


def _room_routes(services: Services) -> list[Route]:
    config, rooms, profiles = services.config, services.rooms, services.accounts.profiles
    send = Send(rooms, services.aliases)
    create = Create(rooms, services.aliases)
    upgrade = Upgrade(rooms, services.aliases, create, profiles)
    remote = services.federation
    old_forms = config.compatibility.access_token_in_query
    return [
        *CreateRoom(
            create, services.membership, profiles, config.server_name, config.default_room_version, services.reactor
        ).routes(),
        *Joining(services.membership).routes(),
        *Inviting(services.membership).routes(),
        *Leaving(services.membership).routes(),
        *Kicking(services.membership).routes(),
        *Banning(services.membership).routes(),
        *Knocking(services.membership).routes(),
        *ListJoinedRooms(services.memberships).routes(),
        *RoomSend(send, without_transaction=old_forms).routes(),
        *Redaction(send, without_transaction=old_forms).routes(),
        *RoomState(send, services.membership).routes(),
        *RoomUpgrades(upgrade).routes(),
        *Directory(rooms, services.aliases, None if remote is None else remote.remote).routes(),
        *ListPublicRooms(
            rooms,
            services.aliases,
            services.public_rooms,
            None if remote is None else remote.reads,
            without_auth=config.allow_public_rooms_without_auth,
        ).routes(),
        *RoomSummary(services.log, services.membership, services.overviews).routes(),
        *MutualRooms(services.memberships).routes(),
        *UserDirectoryEndpoints(
            services.database, FindableUsers(services.log, services.memberships, services.overviews), config
        ).routes(),
        *ReportContent(services.reading, services.database, config.server_name, services.now_ms).routes(),
        *RoomsReading(
            services.reading,
            partial(deferLater, services.reactor, 0),
            None if remote is None else remote.rooms.partial.whole,
        ).routes(),
        *MessagePagination(services.reading, None if remote is None else remote.rooms.history).routes(),
        *EventContext(services.reading).routes(),
        *RoomEventByTimestamp(services.reading, None if remote is None else remote.rooms.moments).routes(),
    ]


def operator_routes(services: Services) -> list[Route]:
    """What the operator's commands ask of the running server, over its socket in the data directory."""
    federation = services.federation
    rooms = RoomOperations(services.deletion).routes()
    if federation is None:
        return rooms
    return [
        *rooms,
        *PeerOperations(federation.outbound, federation.back_offs, federation.resolver).routes(),
        *PinOperations(services.database, federation.resolver).routes(),
    ]
