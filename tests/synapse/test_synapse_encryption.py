"""Encrypted conversations of people with matrix-nio, one here and one there."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.devices import Device
from tests.e2e.talk import ENCRYPTION
from tests.synapse.person import PATIENCE, Person
from tests.synapse.test_synapse_rooms import VERSIONS, Servers, meet, pair, server_of

pytestmark = pytest.mark.synapse
__all__ = ["pair"]


def knows(device: Device, other: Device) -> bool:
    """Whether a device has heard of another one, and not that it is gone."""
    listed = device.client.device_store.active_user_devices(other.client.user_id)
    return other.client.olm.device_id in {one.id for one in listed}


class Scene:
    """The devices of a conversation, each on the server of its user."""

    def __init__(self, servers: Servers, folder: Path, room: str) -> None:
        self._servers, self._folder, self.room = servers, folder, room
        self._devices: list[Device] = []
        self._said = 0

    async def log_in(self, person: Person) -> Device:
        """One more device of a person."""
        (server,) = (one for one in self._servers if one.server_name == server_of(person))
        device = Device(server, person.user_id, self._folder / str(len(self._devices)))
        self._devices.append(device)
        await device.log_in()
        return device

    async def until(self, check: Callable[[], bool], what: str) -> None:
        """Let everybody sync until something is so."""
        end = time.monotonic() + PATIENCE
        while not check():
            assert time.monotonic() < end, f"never: {what}"
            for device in self._devices:
                await device.catch_up()
            await asyncio.sleep(0.05)

    async def meet(self, one: Device, other: Device) -> None:
        """Wait until two devices have heard of each other."""
        await self.until(lambda: knows(one, other) and knows(other, one), "the devices know of each other")

    async def speaks(self, speaker: Device, *readers: Device) -> None:
        """One encrypted message that all of them can read."""
        self._said += 1
        text = f"secret {self._said}"
        await speaker.share_keys(self.room)
        assert await speaker.send(self.room, text, f"t{self._said}") is not None
        for reader in readers:
            await self.until(lambda: reader.seen[text] == 1, f"{reader.client.user_id} reads {text}")  # noqa: B023

    async def log_out(self, device: Device) -> None:
        """A device goes for good."""
        self._devices.remove(device)
        await device.client.logout()
        await device.client.close()

    async def close(self) -> None:
        """Everybody goes home."""
        for device in self._devices:
            await device.client.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_encrypted_conversation(servers: Servers, pair: tuple[Person, Person], tmp_path: Path, version: str) -> None:
    host, guest = pair
    room = meet(host, guest, version, initial_state=[ENCRYPTION])
    asyncio.run(_conversation(Scene(servers, tmp_path, room), host, guest))


async def _conversation(scene: Scene, host: Person, guest: Person) -> None:
    try:
        one, other = await scene.log_in(host), await scene.log_in(guest)
        await scene.meet(one, other)
        await scene.speaks(one, other)
        await scene.speaks(other, one)
        assert one.undecrypted == other.undecrypted == 0

        new_one, new_other = await scene.log_in(host), await scene.log_in(guest)
        await scene.meet(one, new_other)
        await scene.meet(other, new_one)
        await scene.speaks(one, other, new_one, new_other)
        await scene.speaks(new_other, one, other, new_one)
        assert one.undecrypted == other.undecrypted == 0

        await scene.log_out(new_other)
        await scene.until(lambda: not knows(one, new_other), "the host's device hears of the logout")
        await scene.speaks(one, other, new_one)
    finally:
        await scene.close()
