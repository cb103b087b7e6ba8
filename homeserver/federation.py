"""Federation put together: the wire, the rooms that span servers, the queues, and what our clients reach through them.

Nobody but `main` uses this. It takes what exists without federation, and introduces the two to each other.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from nacl.signing import VerifyKey

from config.schema import Config
from federation.inbound.keys_query import KeysQuery
from federation.inbound.keys_server import KeysServer
from federation.inbound.version import Version
from federation.inbound.wellknown import WellKnown, own_address
from federation.outbound.calls import Calls
from federation.outbound.queue import Outbound
from federation.rules.hashes import decode_base64
from federation.rules.signing import SigningKey
from federation.wire.client import FederationClient
from federation.wire.destinations import InMemoryDestinations
from federation.wire.domains import Domains
from federation.wire.kept_back_offs import keep
from federation.wire.key_validity import KeyValidity
from federation.wire.keyring import KeyRing, Notary
from federation.wire.network import Network, system_network
from federation.wire.own_keys import OwnKeys
from federation.wire.pins import StoredPins
from federation.wire.request_auth import RequestAuth
from federation.wire.resolver import Resolver
from federation.wire.steady_time import steady_ms
from federation.wire.well_known_fetch import WellKnownFetch
from homeserver.accounts.profiles import Profiles
from homeserver.ephemeral.presence import Presence
from homeserver.ephemeral.typing import Typing
from homeserver.feed import Feed
from homeserver.keys.announce import DeviceAnnouncements
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.peer_keys import PeerKeys
from homeserver.keys.remote_inboxes import RemoteQueues
from homeserver.keys.to_device import ToDevice
from homeserver.rooms.aliases import Aliases
from homeserver.rooms.deletion import Deletion
from homeserver.rooms.federated import FederatedRooms
from homeserver.rooms.hosts import Hosts
from homeserver.rooms.membership import Membership
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.peer_edus import PeerEdus
from homeserver.rooms.peer_users import PeerDirectory, PeerUsers
from homeserver.rooms.public_rooms import PublicRooms
from homeserver.rooms.remote import Remote
from homeserver.rooms.remote_peers import RemotePeers
from homeserver.rooms.remote_reads import RemoteReads
from homeserver.rooms.room import Rooms
from homeserver.web.peer_limits import PeerLimits
from homeserver.web.peer_routes import peer_routes
from homeserver.web.router import Route
from storage.log.append import Log
from storage.tables.database import Database
from storage.tables.users import known_users

SOFTWARE_VERSION = "0.1.0"
USER_AGENT = f"Folkmoot/{SOFTWARE_VERSION}"


class _Life:
    """The back-off of requests; a sign of life ends that of the queues as well."""

    def __init__(self, requests: InMemoryDestinations) -> None:
        self._requests = requests
        self.on_life: list[Callable[[str], None]] = []

    def refused_until(self, server_name: str) -> int | None:
        return self._requests.refused_until(server_name)

    def succeeded(self, server_name: str) -> None:
        self._requests.succeeded(server_name)
        for told in self.on_life:
            told(server_name)

    def failed(self, server_name: str, reason: str) -> None:
        self._requests.failed(server_name, reason)


class Federation:
    """One server's federation. Make it behind rooms, accounts and keys, before the routes.

    ``remote_keys``, ``remote_inboxes``, ``reads`` and ``rooms.history`` are for the endpoints of our clients;
    then `connect`, and `start` once everybody is there.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        log: Log,
        database: Database,
        signing_keys: list[SigningKey],
        now_ms: Callable[[], int],
        rooms: Rooms,
        membership: Membership,
        memberships: Memberships,
        chance: Random,
        network: Network | None = None,
    ) -> None:
        """``network`` is the way out, the system's by default; ``chance`` spreads what would else happen at once."""
        self._config, self._log, self._database, self._now_ms = config, log, database, now_ms
        self._reactor, self._chance = reactor, chance
        self._steady_ms = steady_ms(reactor, now_ms)
        self._network = network or system_network(config, reactor)
        name = config.server_name
        self._domains = Domains(config.federation_domain_whitelist, config.federation_domain_denylist)
        self._make_wire(signing_keys)
        self.calls = Calls(self.client, config.federation.max_state_size)
        self.rooms = FederatedRooms(
            rooms,
            membership,
            signing_keys[0],
            self.keys,
            RemotePeers(self.calls),
            reactor,
            self._user_exists,
            KeyValidity(self._network.http, USER_AGENT).is_valid,
        )
        federated = self.rooms
        membership.remote = Remote(
            rooms,
            federated.servers,
            federated.checking,
            federated.receive,
            federated.enter,
            federated.policies,
            self.calls,
        )
        self.remote = membership.remote
        self.reads = RemoteReads(self.calls)
        self.hosts = Hosts(name, memberships, told=federated.partial.servers_of)
        self.peer_keys = PeerKeys(
            name, log, memberships, self.hosts, self.calls, reactor, self._steady_ms, chance.random
        )
        self.remote_keys = self.peer_keys.remote_keys
        self.remote_inboxes = RemoteQueues(lambda: f"{chance.getrandbits(128):032x}", self._domains.permit)
        self._request_auth = RequestAuth(name, self.keys, self._domains, self._life)
        limits = config.rc_federation
        self.limits = None if limits is None else PeerLimits(limits, reactor)
        self._engine = rooms

    def _make_wire(self, signing_keys: list[SigningKey]) -> None:
        config, now_ms, chance = self._config, self._now_ms, self._chance
        dns, http = self._network.dns, self._network.http
        policy = config.federation_well_known_policy
        self.resolver = resolver = Resolver(
            WellKnownFetch(http, now_ms, USER_AGENT),
            dns,
            StoredPins(self._database, now_ms),
            lambda server: policy.domains.get(server, policy.default),
            now_ms,
            self._steady_ms,
            chance.random,
        )
        times = config.federation
        self.back_offs = InMemoryDestinations(
            self._steady_ms,
            chance.random,
            times.destination_min_retry_interval,
            times.destination_retry_multiplier,
            times.destination_max_retry_interval,
        )
        keep(self.back_offs, self._log)
        self._life = _Life(self.back_offs)
        self.client = FederationClient(
            signing_keys[0],
            config.server_name,
            resolver,
            http,
            self._domains,
            self._life,
            USER_AGENT,
            times.client_timeout / 1000,
        )
        old = {key_id: (key.key, key.expired_ts) for key_id, key in config.old_signing_keys.items()}
        self.own_keys = OwnKeys(config.server_name, signing_keys, old, config.key_refresh_interval, now_ms)
        notaries = [
            Notary(one.server_name, {id_: VerifyKey(decode_base64(key)) for id_, key in one.verify_keys.items()})
            for one in config.trusted_key_servers
            if one.server_name != config.server_name
        ]
        self.keys = KeyRing(self.own_keys, self.client, self._database, notaries, now_ms, self._steady_ms)
        resolver.keys = self.keys

    async def _user_exists(self, user_id: str) -> bool:
        return user_id in await self._database.run_single(lambda cur: known_users(cur, [user_id]))

    def connect(
        self,
        *,
        feed: Feed,
        keys: KeyCache,
        devices: DeviceDirectory,
        typing: Typing,
        presence: Presence,
    ) -> None:
        """Make the queues and let them follow the feed."""
        config = self._config
        self._presence = presence if config.presence.enabled and config.presence.federation else None
        presence.remote.shares = self.peer_keys.tracked
        self.outbound = Outbound(
            server_name=config.server_name,
            log=self._log,
            sender=self.client,
            hosts=self.hosts,
            devices=DeviceAnnouncements(
                keys, devices, with_names=config.allow_device_name_lookup_over_federation
            ),
            clock=self._reactor,
            now_ms=self._now_ms,
            dice=self._chance.random,
            typing=typing,
            presence=self._presence,
            may_send=self._domains.permit,
        )
        feed.follow(self.hosts.follow)
        feed.follow(self.peer_keys.follow)
        feed.follow(self.outbound.follow)
        self._life.on_life += [self.outbound.alive, self.peer_keys.resync.alive]

    def take_part(self, deletion: Deletion) -> None:
        """Let other servers hear that our users leave a room before it is deleted, and forget it with the others."""
        deletion.owes = self.outbound.owes
        deletion.forget += [self.hosts.forget_room, self.outbound.forget_room]

    def routes(
        self,
        *,
        profiles: Profiles,
        keys: KeyCache,
        lookup: KeyLookup,
        to_device: ToDevice,
        devices: DeviceDirectory,
        aliases: Aliases,
        public_rooms: PublicRooms,
        typing: Typing,
    ) -> list[Route]:
        """Every operation for other servers."""
        config, rooms = self._config, self.rooms
        edus = PeerEdus(
            config.server_name,
            self._log,
            self._engine,
            rooms.servers,
            self._now_ms,
            typing=typing,
            presence=None if self._presence is None else self._presence.remote,
            to_device=to_device,
            devices=devices,
            device_copies=self.peer_keys.devices,
        )
        users = PeerUsers(
            self._database,
            self._log,
            profiles,
            keys,
            lookup,
            self._now_ms,
            config.allow_device_name_lookup_over_federation,
        )
        operations = rooms.operations(
            edus,
            users,
            PeerDirectory(self._engine, aliases, public_rooms, rooms.servers),
            public_rooms=config.allow_public_rooms_over_federation,
            profiles=config.allow_profile_lookup_over_federation,
        )
        open_to_all: list[Any] = [
            Version(SOFTWARE_VERSION),
            KeysServer(self.own_keys),
            KeysQuery(self.keys, self._domains, self._now_ms),
        ]
        if config.serve_server_wellknown:
            open_to_all.append(WellKnown(self.own_keys, own_address(config.server_name, config.public_baseurl)))
        operations += [operation for endpoint in open_to_all for operation in endpoint.operations()]
        return peer_routes(operations, self._request_auth, self.limits)

    def stats(self) -> dict[str, int]:
        """Numbers for the metrics: of the queues, and of the requests that come in."""
        return {**self.outbound.stats(), **({} if self.limits is None else self.limits.stats())}

    def start(self) -> None:
        """Take up sending where the last run ended."""
        self.outbound.start()
        self.rooms.partial.resume()
        self.peer_keys.start()

    async def stop(self) -> None:
        """Write down what is left to send, before the log is closed; close the connections."""
        self.outbound.stop()
        self.rooms.partial.stop()
        self.rooms.receive.untaken.stop()
        self.peer_keys.stop()
        await self._network.close()
