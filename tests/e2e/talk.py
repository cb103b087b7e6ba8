"""People with real clients (matrix-nio) who talk, and a record of what the server acknowledged, kept outside it.

Runs as a process of its own, because nio lives on asyncio: ``python -m tests.e2e.talk --people 12 --rounds 3``.
The server is killed with SIGKILL in mid-talk, once in each round; in the end every device must have every
acknowledged message exactly once.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from nio import JoinError, RegisterResponse, RoomCreateResponse, RoomGetEventResponse

from tests.bench.servers import Folkmoot, Server, Synapse
from tests.e2e.devices import PASSWORD, Device, SocketDevice

ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
PUBLIC = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "public"}}


class Talk:
    """The whole scene."""

    def __init__(self, server: Server, folder: Path, people: int, seed: int) -> None:
        self.server, self.folder, self.people = server, folder, people
        self.random = random.Random(seed)
        self.devices: list[list[Device]] = []
        self.rooms: dict[str, list[int]] = {}
        self.acknowledged: dict[str, tuple[str, str]] = {}
        self.problems: list[str] = []
        self.under_way: set[str] = set()
        self.cut_short: list[int] = []
        self.enough = 0
        self.reached = asyncio.Event()

    def _device(self, user_id: str, person: int, number: int) -> Device:
        """By turns over the long poll, over the WebSocket with a place of its own, over it with the server's cursor."""
        store, way = self.folder / "stores" / f"{person}-{number}", (person + number) % 3
        if way == 0 or not self.server.websocket:
            return Device(self.server, user_id, store)
        return SocketDevice(self.server, user_id, store, remembers=way == 1)

    async def gather(self) -> None:
        """Register, log in (the first tenth of them on a second device as well), open a 1:1 chat and two groups."""
        for number in range(self.people):
            name = f"person{number}"
            first = self._device(f"@{name}:bench.localhost", number, 0)
            answer = await first.client.register(name, PASSWORD, "first")
            assert isinstance(answer, RegisterResponse), answer
            await first.catch_up()
            self.devices.append([first])
        for number in range(max(2, self.people // 10)):
            second = self._device(self.devices[number][0].client.user_id, number, 1)
            await second.log_in()
            self.devices[number].append(second)
        await self._open_room([0, 1], encrypted=True)
        await self._open_room(list(range(self.people)), encrypted=False)
        await self._open_room(list(range(min(self.people, 8))), encrypted=True)
        for device in self.everybody():
            await device.catch_up()
        for device in self.everybody():
            await device.catch_up()

    async def _open_room(self, members: list[int], encrypted: bool) -> None:
        owner = self.devices[members[0]][0].client
        state = [PUBLIC, ENCRYPTION] if encrypted else [PUBLIC]
        made = await owner.room_create(name="Talk", initial_state=state)
        assert isinstance(made, RoomCreateResponse), made
        for member in members[1:]:
            joined = await self.devices[member][0].client.join(made.room_id)
            assert not isinstance(joined, JoinError), joined
        self.rooms[made.room_id] = members

    def everybody(self) -> list[Device]:
        """All devices."""
        return [device for devices in self.devices for device in devices]

    async def rounds(self, count: int, messages: int) -> None:
        """Talk; in each round the server is killed once a random part of it is acknowledged, and started again."""
        for device in self.everybody():
            device.listen()
        await asyncio.wait_for(asyncio.gather(*(device.up_to_date.wait() for device in self.everybody())), 120)
        for number in range(count):
            before, speakers = len(self.acknowledged), sum(min(3, len(m)) for m in self.rooms.values())
            enough = before + self.random.randrange(1, max(2, speakers * (messages - 1)))
            await self._share_keys()
            self.enough, self.reached = enough, asyncio.Event()
            talking = asyncio.create_task(self._chatter(number, messages))
            await asyncio.wait_for(self.reached.wait(), 60)
            self.server.kill()
            self.cut_short.append(len(self.under_way))
            await self.server.start()
            await talking
        await self._settle()

    async def _share_keys(self) -> None:
        for room_id, members in self.rooms.items():
            for speaker in members[:3]:
                device = self.devices[speaker][0]
                if device.client.rooms[room_id].encrypted:
                    await device.share_keys(room_id)

    async def _chatter(self, number: int, messages: int) -> None:
        async def one(room_id: str, speaker: int) -> None:
            device = self.devices[speaker][0]
            for n in range(messages):
                text = f"round {number} room {list(self.rooms).index(room_id)} by {speaker}: {n}"
                self.under_way.add(text)
                event_id = await device.send(room_id, text, f"t{number}-{speaker}-{n}-{room_id[1:9]}")
                self.under_way.discard(text)
                if event_id is None:
                    self.problems.append(f"never acknowledged: {text}")
                else:
                    self.acknowledged[text] = (room_id, event_id)
                    if len(self.acknowledged) >= self.enough:
                        self.reached.set()

        await asyncio.gather(
            *(one(room_id, s) for room_id, members in self.rooms.items() for s in members[:3])
        )

    async def _settle(self) -> None:
        for _ in range(100):
            if not self._missing():
                break
            await asyncio.sleep(0.3)
        for device in self.everybody():
            await device.stop()

    def _missing(self) -> list[str]:
        missing = []
        for text, (room_id, _) in self.acknowledged.items():
            for member in self.rooms[room_id]:
                for number, device in enumerate(self.devices[member]):
                    if not device.seen[text]:
                        missing.append(f"person{member} device {number} lacks {text!r}")
        return missing

    async def verdict(self) -> dict[str, Any]:
        """What is lost, what came twice, and how much there was."""
        twice = [
            f"{device.client.user_id} has {count} of {key!r}"
            for device in self.everybody()
            for seen in (device.seen, device.event_ids)
            for key, count in seen.items()
            if count > 1
        ]
        reader = self.devices[0][0].client
        not_stored = []
        for text, (room_id, event_id) in self.acknowledged.items():
            if not isinstance(await reader.room_get_event(room_id, event_id), RoomGetEventResponse):
                not_stored.append(text)
        sockets = [device for device in self.everybody() if isinstance(device, SocketDevice)]
        result = {
            "acknowledged": len(self.acknowledged),
            "devices": len(self.everybody()),
            "missing": self._missing(),
            "not stored": not_stored,
            "gaps": sum(len(device.gaps) for device in self.everybody()),
            "twice": twice,
            "undecrypted": sum(device.undecrypted for device in self.everybody()),
            "problems": self.problems + [problem for device in sockets for problem in device.misplaced],
            "over the WebSocket": len(sockets),
            "never resumed": sum(not device.resumed for device in sockets),
            "resumed": sum(device.resumed for device in sockets),
            "given again by the cursor": sum(device.forgotten for device in sockets),
            "under way at each kill": self.cut_short,
        }
        for device in self.everybody():
            await device.client.close()
        return result


async def scene(talk: Talk, rounds: int, messages: int) -> dict[str, Any]:
    """The whole scene on a server of its own."""
    try:
        await talk.server.start()
        await talk.gather()
        await talk.rounds(rounds, messages)
        return await talk.verdict()
    finally:
        talk.server.stop()


def main() -> int:
    """Print the verdict as JSON; status 1 when something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.talk")
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--synapse", type=Path, metavar="VENV", help="talk on Synapse, to test the test")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-talk-"))
    folder.chmod(0o755)
    (folder / "server").mkdir()
    try:
        place = folder / "server"
        server = Synapse(place, options.synapse.absolute()) if options.synapse else Folkmoot(place)
        talk = Talk(server, folder, options.people, options.seed)
        result = asyncio.run(scene(talk, options.rounds, options.messages))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result | {"seed": options.seed}, indent=1))
    return 1 if result["missing"] or result["twice"] or result["problems"] or result["undecrypted"] else 0


if __name__ == "__main__":
    sys.exit(main())
