"""Whole homeservers in one process: the real routes, queues, resolver, key ring and signatures of each, on an internet
in memory.

What of a server outlives its runs is in a `Site`: its log's bytes, its PostgreSQL database, its key, and a wall clock of
its own. A run ends in good order (`stop`) or in the middle of things (`kill`): what was not committed then is lost.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar
from urllib.parse import quote

import orjson
from argon2 import PasswordHasher
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from config.schema import Config, InviteLimits, JoinLimits
from federation.rules.signing import SigningKey
from federation.wire.discovery import SrvRecord, Target
from federation.wire.http import HttpAnswer, HttpFailure
from homeserver.main import Homeserver
from homeserver.services import Services
from homeserver.web.call import Answer, Call
from storage.log import events as event_log
from storage.log.append import Log
from storage.log.view import Rows
from storage.memory import MemoryStore, open_memory_log
from storage.tables.database import Database, _Worker
from storage.tables.errors import DatabaseUnavailable
from tests.fakes.internet import Host, Internet, Process

T = TypeVar("T")
PASSWORD = "correct horse"
COMMIT_SECONDS = 0.005


class TurnDatabase(Database):
    """A database whose work is done at once and heard of in the next turn: no threads, so that a run can be repeated."""

    def __init__(self, process: Process, parameters: Mapping[str, object], worker: "_Worker | None" = None) -> None:
        super().__init__(process, parameters)  # type: ignore[arg-type]
        self.worker = worker or _Worker(self)

    def _submit(self, job: Callable[[_Worker], T]) -> "Deferred[T]":
        deferred: Deferred[T] = Deferred()
        if self._closed:
            deferred.errback(DatabaseUnavailable("The server is shutting down"))
            return deferred
        if not self._reactor.alive:
            return deferred
        result: T | Failure
        try:
            result = job(self.worker)
        except Exception as problem:
            result = Failure(problem)
        outbox, self.worker.outbox_written = self.worker.outbox_written, False

        def tell() -> None:
            if outbox and self.on_outbox is not None:
                self.on_outbox()
            deferred.callback(result)

        self._reactor.callLater(0, tell)
        return deferred

    def close(self) -> "Deferred[None]":
        """The connection stays for the next run."""
        self._closed = True
        return succeed(None)


class Disk(MemoryStore):
    """What a server's log holds, as one run of it reaches it: a commit takes a moment, and is lost if the run ends first."""

    def __init__(self, process: Process, before: MemoryStore | None) -> None:
        super().__init__(process)  # type: ignore[arg-type]
        self._process = process
        if before is not None:
            self.tables, self.commits = before.tables, before.commits

    def commit(self, rows: Rows, done: Callable[[BaseException | None], None]) -> None:
        self._process.callLater(COMMIT_SECONDS, self._apply, rows, done)


class AtOnce:
    """Threads for password hashes that are none."""

    def submit(self, work: Callable[[], None]) -> "Future[None]":
        work()
        return Future()

    def shutdown(self, **_: Any) -> None:
        """There is nothing to end."""


class Site:
    """One server: down at first, then up with `start`."""

    def __init__(self, internet: Internet, name: str, parameters: Mapping[str, object], way: str = "port") -> None:
        """``way`` is how the server is found: ``well-known``, ``srv`` or ``port`` (8448 of its name)."""
        self.internet = internet
        self.name = name
        self.parameters = parameters
        self.worker: _Worker | None = None
        self.store: MemoryStore | None = None
        self.clock_error_ms = 0
        """How wrong the server's wall clock goes."""
        self.host = Host(name, {name})
        self.services: Services
        self.homeserver: Homeserver
        self.key = SigningKey.from_seed(name.encode().ljust(32, b"-")[:32], name)
        self.config = Config(
            server_name=name,
            enable_registration=True,
            enable_registration_without_verification=True,
            allow_guest_access=True,
            nonrefreshable_access_token_lifetime=None,
            trusted_key_servers=(),
            serve_server_wellknown=way == "well-known",
            public_baseurl=f"https://matrix.{name}" if way == "well-known" else None,
            rc_message=None,
            rc_registration=None,
            rc_joins=JoinLimits(local=None, remote=None),
            rc_invites=InviteLimits(per_room=None, per_user=None, per_issuer=None),
            rc_room_creation=None,
            rc_key_requests=None,
            rc_registration_available=None,
            rc_user_directory=None,
        )
        self._move_in(way)

    def _move_in(self, way: str) -> None:
        internet, name = self.internet, self.name
        address = f"198.51.100.{len(internet.dns.hosts) + 1}"
        internet.dns.hosts[name] = [address]
        port = 8448
        if way == "well-known":
            self.host.certificate.add(f"matrix.{name}")
            internet.dns.hosts[f"matrix.{name}"] = [address]
            port = 443
        elif way == "srv":
            port = 8449
            internet.dns.hosts[f"node.{name}"] = [address]
            internet.dns.services[f"_matrix-fed._tcp.{name}"] = [SrvRecord(0, 0, port, f"node.{name}")]
        internet.hosts[Target(address, port)] = self.host

    def now_ms(self) -> int:
        return int(self.internet.clock.seconds() * 1000) + self.clock_error_ms

    # -- runs --------------------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self.host.router is not None

    def start(self) -> None:
        """A run on what the last one left."""
        process = Process(self.internet.clock)
        self.store = Disk(process, self.store)
        database = TurnDatabase(process, self.parameters, self.worker)
        self.worker = database.worker
        log: Log = open_memory_log(self.store, process, "e1")  # type: ignore[arg-type]
        network = self.internet.network(self.name, process)
        self.services = Services(
            self.config, process, log, database, [self.key], self.now_ms, network=network, chance=self.internet.chance
        )
        passwords = self.services.accounts.passwords
        passwords._pool = AtOnce()  # type: ignore[assignment]
        passwords._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        self.homeserver = Homeserver(self.services)
        self.services.start()
        self.host.process, self.host.router = process, self.homeserver.router

    def stop(self) -> None:
        """The run ends in good order."""
        self.host.router = None
        self.internet.run(Deferred.fromCoroutine(self.services.stop()))
        self._process.die()

    def kill(self) -> None:
        """The run ends here and now."""
        self.host.router = None
        self._process.die()

    @property
    def _process(self) -> Process:
        assert self.host.process is not None
        return self.host.process

    def peers(self) -> list[dict[str, Any]]:
        """The queues towards others."""
        federation = self.services.federation
        assert federation is not None
        return federation.outbound.peers()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to others."""
        federation = self.services.federation
        assert federation is not None
        waits = any(lane.waiting or lane.messages or lane.destination.behind for lane in federation.outbound._lanes.values())
        return not waits and not federation.rooms.receive.untaken.waiting and not self._process.under_way

    # -- requests ----------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, token: str | None = None) -> "Deferred[HttpAnswer]":
        """A client's request; HttpFailure when the server is down or goes down before it answers."""
        answered: Deferred[HttpAnswer] = Deferred()
        if self.host.router is None:
            answered.errback(HttpFailure("the server is down"))
            return answered
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        call = Call(method, path, headers, b"" if body is None else orjson.dumps(body), "127.0.0.1")
        outcome = self.host.router.start(call)
        if isinstance(outcome, Answer):
            answered.callback(_plain(outcome))
            return answered
        unanswered = self._process.unanswered
        unanswered[answered] = None

        def answer(found: Answer) -> None:
            unanswered.pop(answered)
            answered.callback(_plain(found))

        outcome.addCallback(answer)
        return answered

    # -- what it knows -----------------------------------------------------------------------------------------------

    def soft_failed(self, event_id: str) -> bool:
        """Whether the server has the event and keeps it from its clients."""
        record = event_log.event_by_id(self.services.log, event_id)
        return record is not None and bool(record.flags & event_log.SOFT_FAILED)

    def heads(self, room_id: str) -> set[str]:
        return {event_id for event_id, _ in self.services.rooms.get(room_id).meta.extremities}

    def state_of(self, room_id: str) -> dict[tuple[str, str], str]:
        room = self.services.rooms.get(room_id)
        return dict(room.state_map.items(room.meta.state_root))


def _plain(answer: Answer) -> HttpAnswer:
    return HttpAnswer(answer.status, {}, answer.encoded())


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.errcode = body.get("errcode")


class Person:
    """Somebody with an account and a client."""

    def __init__(self, site: Site, name: str, token: str | None = None) -> None:
        self.site = site
        self.name = name
        self.user_id = f"@{name}:{site.name}"
        self.token = token or self._register()
        self._transactions = 0

    def _register(self) -> str:
        body = {"username": self.name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        token: str = self.ask("POST", "/register", body)["access_token"]
        return token

    def new_transaction(self) -> str:
        self._transactions += 1
        return f"t{self._transactions}"

    def begin(self, method: str, path: str, body: Any = None) -> "Deferred[Any]":
        """A request of the Client-Server API that nobody waits for yet: the decoded answer, or Refused, or HttpFailure."""
        token = getattr(self, "token", None)
        return self.site.request(method, f"/_matrix/client/v3{path}", body, token).addCallback(_read)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The same, waited for."""
        return self.site.internet.run(self.begin(method, path, body))

    def say(self, room_id: str, text: str) -> str:
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{self.new_transaction()}"
        event_id: str = self.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]
        return event_id

    def history(self, room_id: str) -> list[dict[str, Any]]:
        """Every event of the room that the person sees, oldest first, as a client pages through it."""
        events: list[dict[str, Any]] = []
        start = ""
        for _ in range(100):
            page = self.ask("GET", f"/rooms/{quote(room_id)}/messages?dir=b&limit=100{start}")
            events += page["chunk"]
            if not page["chunk"] or "end" not in page:
                return events[::-1]
            start = f"&from={page['end']}"
        raise AssertionError("the history does not end")

    def texts(self, room_id: str) -> list[str]:
        """What was said in the room."""
        messages = [event for event in self.history(room_id) if event["type"] == "m.room.message"]
        return [event["content"].get("body", "(redacted)") for event in messages]


def _read(answer: HttpAnswer) -> Any:
    body = orjson.loads(answer.body)
    if answer.status != 200:
        raise Refused(answer.status, body)
    return body


def settle(internet: Internet, sites: Iterable[Site], seconds: float = 86_400.0) -> None:
    """Let time pass until nobody has anything to send that could be sent."""
    end = internet.clock.seconds() + seconds
    while internet.clock.seconds() < end:
        internet.step()
        if not internet.due() and all(site.idle for site in sites if site.up):
            return
    waiting = [peer for site in sites if site.up and not site.idle for peer in site.peers()]
    raise AssertionError(f"no rest after {seconds:g} seconds: {waiting}")


class Homes:
    """PostgreSQL databases for sites, by name, emptied between tests but for the accounts, which cost the most to make."""

    LEFTOVERS = ("server_keys", "server_key_answers", "well_known_pins", "outbox")

    def __init__(self, make_database: Callable[[str], Mapping[str, object]]) -> None:
        self._make_database = make_database
        self._workers: dict[str, _Worker] = {}
        self._parameters: dict[str, Mapping[str, object]] = {}
        self._tokens: dict[str, str] = {}

    def site(self, internet: Internet, name: str, way: str = "port") -> Site:
        """A server that is up, on an empty log."""
        if name not in self._parameters:
            self._parameters[name] = self._make_database(name)
        site = Site(internet, name, self._parameters[name], way)
        site.worker = self._workers.get(name)
        site.start()
        assert site.worker is not None
        self._workers[name] = site.worker
        self._clean(site)
        return site

    def person(self, site: Site, name: str) -> Person:
        """Somebody with an account. It was made in a run that nobody else sees, so that every test begins alike."""
        user_id = f"@{name}:{site.name}"
        if user_id not in self._tokens:
            scratch = Site(Internet(), site.name, site.parameters)
            scratch.worker = site.worker
            scratch.start()
            self._tokens[user_id] = Person(scratch, name).token
            scratch.kill()
            self._clean(site)
        return Person(site, name, self._tokens[user_id])

    def _clean(self, site: Site) -> None:
        assert site.worker is not None
        site.worker.transaction(lambda cur: cur.execute(";".join(f"DELETE FROM {name}" for name in self.LEFTOVERS)), 1)
