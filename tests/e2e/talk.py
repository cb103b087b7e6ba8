"""People with real clients (matrix-nio) who talk, and a record of what the server acknowledged, kept outside it.

Runs as a process of its own, because nio lives on asyncio: ``python -m tests.e2e.talk --people 12 --rounds 3``.
The server is killed with SIGKILL in mid-talk, once in each round; in the end every device must have every
acknowledged message exactly once.
"""

import argparse
import asyncio
import collections
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from nio import (
    AsyncClient,
    AsyncClientConfig,
    JoinError,
    LoginResponse,
    MegolmEvent,
    RegisterResponse,
    RoomCreateResponse,
    RoomGetEventResponse,
    RoomMessageText,
    RoomSendResponse,
    SyncResponse,
)

from tests.bench.servers import Folkmoot, Server, Synapse

PASSWORD = "correct horse battery"
ENCRYPTION = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
PUBLIC = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "public"}}
TROUBLE = (OSError, asyncio.TimeoutError, json.JSONDecodeError)


class Device:
    """One client of one user; ``seen`` counts what reached it, by text."""

    def __init__(self, server: Server, user_id: str, store: Path) -> None:
        config = AsyncClientConfig(
            encryption_enabled=True, store_sync_tokens=True, max_timeouts=1, request_timeout=20, max_limit_exceeded=0
        )
        store.mkdir(parents=True, exist_ok=True)
        url = f"http://{server.host}:{server.port}"
        self.client = AsyncClient(url, user_id, store_path=str(store), config=config)
        self.seen: collections.Counter[str] = collections.Counter()
        self.event_ids: collections.Counter[str] = collections.Counter()
        self.undecrypted = 0
        self.gaps: list[str] = []
        self.filter: dict[str, Any] | None = {"room": {"timeline": {"limit": 1000}}}
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self.client.add_event_callback(self._message, RoomMessageText)
        self.client.add_event_callback(self._not_decrypted, MegolmEvent)

    async def _message(self, room: Any, event: RoomMessageText) -> None:
        self.seen[event.body] += 1
        self.event_ids[event.event_id] += 1

    async def _not_decrypted(self, room: Any, event: MegolmEvent) -> None:
        self.undecrypted += 1

    async def log_in(self) -> None:
        """Log in as a new device, upload its keys and catch up."""
        answer = await self.client.login(PASSWORD, device_name="test")
        assert isinstance(answer, LoginResponse), answer
        await self.catch_up()

    async def catch_up(self) -> None:
        """One sync that does not wait, then whatever the encryption machine asks for."""
        answer = await self.client.sync(timeout=0, full_state=self.client.next_batch is None)
        assert isinstance(answer, SyncResponse), answer
        await self._housekeeping()

    async def _housekeeping(self) -> None:
        client = self.client
        if client.should_upload_keys:
            await client.keys_upload()
        if client.should_query_keys:
            await client.keys_query()
        if client.should_claim_keys:
            await client.keys_claim(client.get_users_for_key_claiming())
        await client.send_to_device_messages()

    def listen(self) -> None:
        """Long-poll until told to stop; a lost server is tried again with the same token."""
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while not self._stopping:  # a cancellation alone can get lost in wait_for
            try:
                answer = await asyncio.wait_for(self.client.sync(timeout=5000, sync_filter=self.filter), 25)
                if isinstance(answer, SyncResponse):
                    self._note_gaps(answer)
                    await self._housekeeping()
                else:
                    await asyncio.sleep(0.2)
            except TROUBLE:
                await asyncio.sleep(0.1)

    def _note_gaps(self, answer: SyncResponse) -> None:
        """nio doesn't fetch what a limited timeline leaves out: the verdict says if there was one."""
        self.gaps += [room_id for room_id, room in answer.rooms.join.items() if room.timeline.limited]

    async def stop(self) -> None:
        """Stop long-polling."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def share_keys(self, room_id: str) -> None:
        """A fresh group session, given to everybody while the server is up.

        nio takes a session for shared even when handing its keys out failed (on any server), so that must not
        happen during a kill; and it makes a new one after 100 messages.
        """
        self.client.invalidate_outbound_session(room_id)
        await self.client.share_group_session(room_id, ignore_unverified_devices=True)

    async def send(self, room_id: str, text: str, transaction: str) -> str | None:
        """Send with this transaction id until the server acknowledges; gives the event id."""
        content = {"msgtype": "m.text", "body": text}
        for _ in range(200):
            try:
                answer = await asyncio.wait_for(
                    self.client.room_send(
                        room_id, "m.room.message", content, transaction, ignore_unverified_devices=True
                    ),
                    25,
                )
                if isinstance(answer, RoomSendResponse):
                    return str(answer.event_id)
            except TROUBLE:
                pass
            await asyncio.sleep(0.1)
        return None


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

    def _device(self, user_id: str, name: str) -> Device:
        return Device(self.server, user_id, self.folder / "stores" / name)

    async def gather(self) -> None:
        """Register, log in (the first two on a second device as well), open a 1:1 chat and two groups."""
        for number in range(self.people):
            name = f"person{number}"
            first = self._device(f"@{name}:bench.localhost", f"{number}-0")
            answer = await first.client.register(name, PASSWORD, "first")
            assert isinstance(answer, RegisterResponse), answer
            await first.catch_up()
            self.devices.append([first])
        for number in range(2):
            second = self._device(self.devices[number][0].client.user_id, f"{number}-1")
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
        result = {
            "acknowledged": len(self.acknowledged),
            "devices": len(self.everybody()),
            "missing": self._missing(),
            "not stored": not_stored,
            "gaps": sum(len(device.gaps) for device in self.everybody()),
            "twice": twice,
            "undecrypted": sum(device.undecrypted for device in self.everybody()),
            "problems": self.problems,
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
