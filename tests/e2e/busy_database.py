"""People register, log in and publish keys while PostgreSQL, which is not ours to start, goes away and comes back.

Everything acknowledged is there afterwards, every request was answered, and the refusals were 503 with a Matrix error.
``python -m tests.e2e.busy_database --people 100 --outages 6``; the environment's TEST_POSTGRES names another version.
"""

import argparse
import asyncio
import collections
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg2

from tests.bench.people import V3
from tests.bench.servers import Folkmoot, free_port
from tests.fakes.postgres import SeparatePostgres

ANSWER_SECONDS = 60
"""A request without an answer after so long counts as hanging."""
PASSWORD = "a long password"
KEYS = 10


class FolkmootBeside(Folkmoot):
    """Ours, with a PostgreSQL of the operator's."""

    def __init__(self, directory: Path, parameters: dict[str, object]) -> None:
        directory.mkdir(exist_ok=True)
        super().__init__(directory)
        self._parameters = parameters

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"database": {"args": dict(self._parameters)}}


class Trial:
    """What the people did, what they were told, and what of it is there in the end."""

    def __init__(self, server: FolkmootBeside, postgres: SeparatePostgres) -> None:
        self.server, self.postgres = server, postgres
        self.answers: collections.Counter[int] = collections.Counter()
        self.odd: list[str] = []
        self.slowest = 0.0
        self.keys: dict[str, tuple[str, str]] = {}
        """Acknowledged device keys: token and device of each user."""
        self._number = 0
        self._over = False

    async def run(self, people: int, outages: int, seconds: float) -> dict[str, Any]:
        """All outages in the midst of the people's doings, then the verdict."""
        talking = [asyncio.create_task(self._come_and_go()) for _ in range(people)]
        for number in range(outages):
            await self._served(3 * people * (number + 1) // 2)
            await self._outage(number, seconds)
        await self._served(self.answers[200] + people)
        self._over = True
        await asyncio.gather(*talking)
        return await self._verdict()

    async def _served(self, requests: int) -> None:
        await self._until(lambda: self.answers[200] >= requests)

    async def _until(self, condition: Any) -> None:
        deadline = time.monotonic() + 2 * ANSWER_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"no progress: {dict(self.answers)} {self.odd[:5]}")
            await asyncio.sleep(0.05)

    async def _outage(self, number: int, seconds: float) -> None:
        """By turns: a power cut, a restart by the book, a server that stands still."""
        refused = self.answers[503]
        if number % 3 == 2:
            self.postgres.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self.postgres.signal(signal.SIGCONT)
            return
        await asyncio.to_thread(self.postgres.kill if number % 3 == 0 else self.postgres.stop)
        await asyncio.sleep(seconds)
        await self._until(lambda: self.answers[503] > refused)
        await asyncio.to_thread(self.postgres.start)

    async def _come_and_go(self) -> None:
        while not self._over:
            self._number += 1
            await self._person(f"p{self._number}")

    async def _person(self, name: str) -> None:
        auth = {"type": "m.login.dummy"}
        account = await self._insist("POST", "/register", {"username": name, "password": PASSWORD, "auth": auth})
        if account is None:  # the first try was done after all, although the answer was a 503
            login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": PASSWORD}
            account = await self._insist("POST", "/login", login)
        assert account is not None
        user_id, device_id, token = account["user_id"], account["device_id"], account["access_token"]
        keys = {f"signed_curve25519:{n}": {"key": f"k{n}", "signatures": {}} for n in range(KEYS)}
        device = {"user_id": user_id, "device_id": device_id, "algorithms": [], "keys": {}, "signatures": {}}
        upload = {"device_keys": device, "one_time_keys": keys}
        counts = await self._insist("POST", "/keys/upload", upload, token)
        if counts != {"one_time_key_counts": {"signed_curve25519": KEYS}}:
            self.odd.append(f"{name}: {counts}")
        self.keys[user_id] = token, device_id

    async def _insist(self, method: str, path: str, body: object, token: str | None = None) -> Any:
        """The answer, however often it takes; None when the user name is taken."""
        connection = self.server.connection(token)
        try:
            while True:
                began = time.monotonic()
                status, data = await asyncio.wait_for(connection.raw(method, V3 + path, body), ANSWER_SECONDS)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.answers[status] += 1
                answer = json.loads(data)
                if status == 200:
                    return answer
                if answer.get("errcode") == "M_USER_IN_USE":
                    return None
                if (status, answer.get("errcode")) not in ((503, "M_UNKNOWN"), (429, "M_LIMIT_EXCEEDED")):
                    self.odd.append(f"{path}: {status} {answer}")
                await asyncio.sleep(0.1)
        finally:
            connection.close()

    async def _verdict(self) -> dict[str, Any]:
        missing = []
        for user_id, (token, device_id) in self.keys.items():
            found = await self._insist("POST", "/keys/query", {"device_keys": {user_id: [device_id]}}, token)
            if device_id not in found["device_keys"].get(user_id, {}):
                missing.append(user_id)
        return {
            "acknowledged": len(self.keys),
            "missing": missing,
            "odd": self.odd,
            "answers": dict(self.answers),
            "slowest answer": round(self.slowest, 1),
        }


def trial(people: int, outages: int, seconds: float) -> dict[str, Any]:
    """A server and a PostgreSQL of their own, and all of it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="folkmoot-busy-", dir=memory if memory.is_dir() else None))
    folder.chmod(0o755)
    postgres = SeparatePostgres(folder, tcp_port=free_port())
    try:
        postgres.start()
        server = FolkmootBeside(folder / "server", postgres.create_database("folkmoot"))
        try:
            return asyncio.run(_scene(Trial(server, postgres), people, outages, seconds))
        finally:
            server.stop()
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _scene(trial: Trial, people: int, outages: int, seconds: float) -> dict[str, Any]:
    await trial.server.start()
    version = psycopg2.connect(**trial.postgres.parameters).server_version  # type: ignore[call-overload]
    return {"postgresql": version} | await trial.run(people, outages, seconds)


def main() -> int:
    """Print the verdict as JSON; status 1 when something was lost or answered wrongly."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.busy_database")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--outages", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each")
    options = parser.parse_args()
    result = trial(options.people, options.outages, options.seconds)
    print(json.dumps(result, indent=1))
    return 1 if result["missing"] or result["odd"] else 0


if __name__ == "__main__":
    sys.exit(main())
