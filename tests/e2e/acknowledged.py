"""I01 without a client library: each acknowledgement is recorded outside the server, which is killed again and again.

Plain messages and to-device messages go out while the server is killed with SIGKILL; readers long-poll on. In the
end each reader has each acknowledged one exactly once. ``python -m tests.e2e.acknowledged --rounds 20``.
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
from urllib.parse import quote

from tests.bench.connection import HttpError
from tests.bench.people import V3, Person, register
from tests.bench.servers import Folkmoot, Server, Synapse

TROUBLE = (OSError, TimeoutError, ValueError)


class Reader:
    """Follows ``/sync`` with its own token; ``seen`` counts what arrived, by text."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.seen: collections.Counter[str] = collections.Counter()
        self.gaps = 0
        self.errors: collections.Counter[str] = collections.Counter()
        self.history: list[tuple[str, str, int]] = []
        self._since = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Catch up, then follow."""
        self._since = (await self.person.sync())["next_batch"]
        self._task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        connection = self.person.server.connection(self.person.token)
        wide = quote(json.dumps({"room": {"timeline": {"limit": 1000}}}))
        while True:
            path = f"{V3}/sync?timeout=3000&set_presence=offline&filter={wide}&since={quote(self._since, safe='')}"
            try:
                answer = await connection.call("GET", path)
            except HttpError as problem:
                self.errors[f"{problem.status}"] += 1
                await asyncio.sleep(0.05)
            except TROUBLE:
                await asyncio.sleep(0.02)
            else:
                self._take(answer)

    def _take(self, answer: dict[str, Any]) -> None:
        before = sum(self.seen.values())
        for event in answer.get("to_device", {}).get("events", []):
            self.seen[event["content"]["text"]] += 1
        for room in answer.get("rooms", {}).get("join", {}).values():
            self.gaps += bool(room["timeline"].get("limited"))
            for event in room["timeline"]["events"]:
                if event["type"] == "m.room.message":
                    self.seen[event["content"]["body"]] += 1
        self.history.append((self._since, answer["next_batch"], sum(self.seen.values()) - before))
        self._since = answer["next_batch"]

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class Trial:
    """Two senders of messages, two of to-device messages, and readers of both."""

    def __init__(self, server: Server, readers: int, seed: int) -> None:
        self.server, self.count, self.random = server, readers, random.Random(seed)
        self.acknowledged: dict[str, str] = {}
        self.under_way: set[str] = set()
        self.cut_short: list[int] = []
        self.readers: list[Reader] = []
        self.people: list[Person] = []
        self.room_id = ""

    async def run(self, rounds: int, each: int) -> dict[str, Any]:
        """All rounds, then the verdict."""
        self.people = await register(self.server, self.count)
        self.room_id = await self.people[0].create_room()
        for person in self.people[1:]:
            await person.join(self.room_id)
        self.readers = [Reader(person) for person in self.people]
        for reader in self.readers:
            await reader.start()
        for number in range(rounds):
            await self._round(number, each)
        for _ in range(100):
            if not self._missing():
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        for reader in self.readers:
            await reader.stop()
        return await self._verdict()

    async def _round(self, number: int, each: int) -> None:
        enough = len(self.acknowledged) + self.random.randrange(1, 4 * (each - 1))
        reached = asyncio.Event()
        jobs = [self._speak(kind, number, n, each, enough, reached) for kind in ("m", "d") for n in range(2)]
        talking = asyncio.gather(*jobs)
        await asyncio.wait({asyncio.ensure_future(reached.wait()), talking}, return_when="FIRST_COMPLETED")
        self.server.kill()
        self.cut_short.append(len(self.under_way))
        await self.server.start()
        await talking

    async def _speak(
        self, kind: str, number: int, speaker: int, each: int, enough: int, reached: asyncio.Event
    ) -> None:
        person = self.people[speaker]
        connection = self.server.connection(person.token)
        for n in range(each):
            text = f"{kind}-{number}-{speaker}-{n}"
            if kind == "m":
                path = f"{V3}/rooms/{quote(self.room_id)}/send/m.room.message/{text}"
                body: dict[str, Any] = {"msgtype": "m.text", "body": text}
            else:
                path = f"{V3}/sendToDevice/org.example.note/{text}"
                body = {"messages": {p.user_id: {p.device_id: {"text": text}} for p in self.people}}
            self.under_way.add(text)
            while True:
                try:
                    answer = await connection.call("PUT", path, body)
                    break
                except TROUBLE:
                    await asyncio.sleep(0.02)
            self.under_way.discard(text)
            self.acknowledged[text] = answer.get("event_id", "")
            if len(self.acknowledged) >= enough:
                reached.set()

    def _missing(self) -> list[str]:
        return [
            f"{reader.person.user_id} lacks {text}"
            for text in self.acknowledged
            for reader in self.readers
            if not reader.seen[text]
        ]

    async def _verdict(self) -> dict[str, Any]:
        not_stored = []
        for text, event_id in self.acknowledged.items():
            if event_id:
                path = f"{V3}/rooms/{quote(self.room_id)}/event/{quote(event_id)}"
                status, _ = await self.people[0].connection.raw("GET", path)
                if status != 200:
                    not_stored.append(text)
        return {
            "acknowledged": len(self.acknowledged),
            "missing": self._missing(),
            "twice": [f"{r.person.user_id}: {t} {n}" for r in self.readers for t, n in r.seen.items() if n > 1],
            "not stored": not_stored,
            "gaps": sum(reader.gaps for reader in self.readers),
            "errors": dict(sum((reader.errors for reader in self.readers), collections.Counter())),
            "under way at each kill": self.cut_short,
        }


async def scene(trial: Trial, rounds: int, each: int) -> dict[str, Any]:
    """The trial on a server of its own."""
    try:
        await trial.server.start()
        return await trial.run(rounds, each)
    finally:
        trial.server.stop()


def main() -> int:
    """Print the verdict as JSON; status 1 when something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.acknowledged")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--each", type=int, default=15)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--synapse", type=Path, metavar="VENV", help="on Synapse, to test the test")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-acknowledged-"))
    folder.chmod(0o755)
    try:
        server = Synapse(folder, options.synapse.absolute()) if options.synapse else Folkmoot(folder)
        trial = Trial(server, options.readers, options.seed)
        result = asyncio.run(scene(trial, options.rounds, options.each))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result | {"seed": options.seed}, indent=1))
    return 1 if result["missing"] or result["twice"] or result["not stored"] else 0


if __name__ == "__main__":
    sys.exit(main())
