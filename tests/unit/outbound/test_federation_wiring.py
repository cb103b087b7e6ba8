"""Everything of federation is introduced to everything else: it is made, connected, started and stopped."""

from random import Random

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import Clock

from config.schema import Config
from homeserver.federation import Federation
from homeserver.keys.device_directory import DeviceDirectory
from homeserver.keys.key_cache import KeyCache
from homeserver.keys.key_counts import KeyCountCache
from homeserver.keys.lookup import KeyLookup
from homeserver.keys.to_device import ToDevice
from homeserver.rooms.overview import Overviews
from homeserver.rooms.public_rooms import PublicRooms
from storage.tables.database import Database
from tests.fakes.world import SERVER, World


@pytest_twisted.ensureDeferred
async def test_it_fits_together(database: Database) -> None:
    world = World(clock=Clock())
    config = Config(server_name=SERVER)
    federation = Federation(
        config,
        reactor,
        world.log,
        database,
        [world.rooms._signing_key],
        world.now_ms,
        world.rooms,
        world.membership,
        world.memberships,
        Random(1),
    )
    assert world.membership.remote is federation.remote
    keys, devices = KeyCache(database), DeviceDirectory(database)
    typing, presence = world.sync.typing, world.sync.presence
    federation.connect(
        feed=world.feed,
        keys=keys,
        devices=devices,
        typing=typing,
        presence=presence,
    )
    counts = KeyCountCache(database)
    lookup = KeyLookup(SERVER, database, keys, counts, federation.remote_keys, lambda user, device: None)
    routes = federation.routes(
        profiles=world.membership._profiles,  # type: ignore[arg-type]
        keys=keys,
        lookup=lookup,
        to_device=ToDevice(SERVER, world.log, devices, federation.remote_inboxes),
        devices=devices,
        aliases=world.aliases,
        public_rooms=PublicRooms(world.log, world.aliases, Overviews()),
        typing=typing,
    )
    paths = {(route.method, route.path) for route in routes}
    assert ("PUT", "/_matrix/federation/v1/send/{txnId}") in paths
    assert ("GET", "/_matrix/key/v2/server") in paths
    assert len(paths) == len(routes)
    federation.start()
    assert federation.outbound.peers() == []
    await federation.stop()
