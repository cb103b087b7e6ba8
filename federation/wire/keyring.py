"""The keys of other servers: cached, kept, fetched from the server itself or from notaries; and what they are for.

Specification: Server-Server API, "Retrieving server keys". Our own keys are always valid here.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import orjson
from nacl.signing import VerifyKey
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.logger import Logger

from federation.rules import canonical_json
from federation.rules.checks import check_signatures, required_signatures
from federation.rules.errors import MatrixError
from federation.rules.event import Event
from federation.rules.ids import is_valid_key_id
from federation.rules.signing import (
    POLICY_KEY_ID,
    KeyUnavailable,
    SignatureError,
    verify_signatures,
    verify_signed_json,
)
from federation.wire.client import FederationClient
from federation.wire.errors import PeerUnreachable, RequestRefused
from federation.wire.key_answers import MAX_ANSWER_BYTES, KeyAnswer, KeyAnswerError, ServerKey, check
from federation.wire.key_waits import KeyWaits
from federation.wire.own_keys import OwnKeys
from storage.tables import server_keys
from storage.tables.database import Database
from storage.tables.errors import DatabaseUnavailable
from storage.tables.server_keys import AnswerRow, KeyRow

MAX_CACHED_SERVERS = 20_000
CONCURRENT_FETCHES = 20
NOTARY_BATCH = 100
NOTARIES_FIRST_FROM = 5
"""From so many servers at once on, a notary is asked first: one request instead of hundreds."""
NOTARY_ANSWER_BYTES = 8 * 1024 * 1024
DIRECT_PATH = "/_matrix/key/v2/server"

_log = Logger()


class _Heard(Enum):
    """What came of asking a server for its own keys. One that refuses is there: it may have begun a moment ago."""

    KEYS = auto()
    REFUSAL = auto()
    NOTHING = auto()


class Notary(NamedTuple):
    """A server that vouches for other servers' keys; ``verify_keys`` pins its own (id to key), may be empty."""

    server_name: str
    verify_keys: Mapping[str, VerifyKey]


class KeyRing:
    """Everybody's public keys."""

    def __init__(
        self,
        own: OwnKeys,
        client: FederationClient,
        database: Database,
        notaries: Sequence[Notary],
        now_ms: Callable[[], int],
        steady_ms: Callable[[], int],
    ) -> None:
        """Keys are valid by the wall clock, ``now_ms``; waits go by ``steady_ms``."""
        self.own = own
        self._client = client
        self._database = database
        self._notaries = notaries
        self.now_ms = now_ms
        self._known: OrderedDict[str, dict[str, ServerKey]] = OrderedDict()
        self._waits = KeyWaits(steady_ms)
        self._under_way: dict[str, list[Deferred[None]]] = {}
        self._slots = DeferredSemaphore(CONCURRENT_FETCHES)

    async def keys_for(
        self, server_name: str, key_ids: Iterable[str], valid_at_ts: int = 0
    ) -> dict[str, VerifyKey]:
        """Those of the keys that can be had and are valid at a time (ms); 0 asks for no validity.

        Never raises for what another server does.
        """
        wanted = {key_id for key_id in key_ids if is_valid_key_id(key_id)}
        await self.prefetch({server_name: wanted}, valid_at_ts)
        return self._valid(server_name, wanted, valid_at_ts)

    async def prefetch(self, wanted: Mapping[str, Iterable[str]], valid_at_ts: int = 0) -> None:
        """Get the keys of many servers at once, so that ``keys_for`` has them."""
        lacking = {
            name: {key_id for key_id in key_ids if is_valid_key_id(key_id)}
            for name, key_ids in wanted.items()
            if name != self.own.server_name
        }
        await self._load([name for name in lacking if name not in self._known])
        lacking = self._lacking(lacking, valid_at_ts)
        if len(lacking) >= NOTARIES_FIRST_FROM:
            await self._ask_notaries(lacking, valid_at_ts)
            lacking = self._lacking(lacking, valid_at_ts)
        if not lacking:
            return
        await gatherResults([Deferred.fromCoroutine(self._fetch_once(name, valid_at_ts)) for name in lacking])

    async def verify_json(self, obj: Mapping[str, Any], server_name: str, valid_at_ts: int = 0) -> None:
        """Check a server's signature on an object. Raises SignatureError (401)."""
        signatures = obj.get("signatures")
        of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
        if not isinstance(of_server, dict):
            raise SignatureError(f"No signature of {server_name}")
        verify_signed_json(obj, server_name, await self.keys_for(server_name, list(of_server)[:16], valid_at_ts))

    async def verify_event_signatures(self, event: Event) -> None:
        """Check that every required server (``rules.checks.required_signatures``) has signed an event.

        Raises SignatureError.
        """
        await self.verify_events([event])

    async def verify_signature_of(self, event: Event, server_name: str) -> None:
        """Check one server's signature on an event, required of everybody or not. Raises SignatureError."""
        signatures = event.pdu.get("signatures")
        of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
        key_ids = list(of_server)[:16] if isinstance(of_server, dict) else []
        at = event.origin_server_ts if event.version.enforce_key_validity else 0
        keys = await self.keys_for(server_name, key_ids, min(at, self.now_ms()))
        verify_signatures(event.signed_bytes, signatures, server_name, keys)

    async def verify_events(self, events: Sequence[Event]) -> None:
        """Check many events, with the keys of all fetched together. Raises SignatureError for the first wrong one."""
        for problem in await self.check_events(events):
            if problem is not None:
                raise problem

    async def check_events(self, events: Sequence[Event]) -> list[SignatureError | None]:
        """For each event what is wrong with its signatures, None when they are right."""
        wanted: dict[str, set[str]] = {}
        needs: list[dict[str, set[str]] | SignatureError] = []
        for event in events:
            try:
                need = _needed(event)
            except SignatureError as problem:
                needs.append(problem)
                continue
            needs.append(need)
            for name, key_ids in need.items():
                wanted.setdefault(name, set()).update(key_ids)
        if wanted:
            newest = max(
                (event.origin_server_ts for event in events if event.version.enforce_key_validity), default=0
            )
            await self.prefetch(wanted, min(newest, self.now_ms()))
        return [
            need if isinstance(need, SignatureError) else self._check(event, need)
            for event, need in zip(events, needs, strict=True)
        ]

    def _check(self, event: Event, need: Mapping[str, set[str]]) -> SignatureError | None:
        at = event.origin_server_ts if event.version.enforce_key_validity else 0
        try:
            check_signatures(event, {name: self._valid(name, ids, at) for name, ids in need.items()}, need)
        except SignatureError as problem:
            away = [name for name, ids in need.items() if self._is_away(name) and not self._valid(name, ids, at)]
            return KeyUnavailable(f"{away[0]} does not answer, and its key is not known") if away else problem
        return None

    def _is_away(self, server_name: str) -> bool:
        return server_name != self.own.server_name and self._waits.is_away(server_name)

    async def published(
        self, server_name: str, address: str, key_ids: tuple[str, ...]
    ) -> Mapping[str, bytes]:
        """Keys of a domain for its well-known record: known from before, else asked of the delegated address."""
        await self._load([server_name] if server_name not in self._known else [])
        known = self._valid(server_name, key_ids, 0)
        if len(known) < len(key_ids):
            try:
                body = await self._client.unsigned_get_at(server_name, address, DIRECT_PATH, MAX_ANSWER_BYTES)
                answer = check(canonical_json.decode_strict(body), self.now_ms())
                if answer.server_name == server_name:
                    fetched = {key_id: key.verify_key for key_id, key in answer.keys.items()}
                    known = {**{one: fetched[one] for one in key_ids if one in fetched}, **known}
            except (PeerUnreachable, MatrixError, KeyAnswerError) as problem:
                _log.info("keys of {name} at {address}: {problem}", name=server_name, address=address, problem=problem)
        return {key_id: bytes(key) for key_id, key in known.items()}

    # -- what is known

    def _valid(self, server_name: str, key_ids: Iterable[str], valid_at_ts: int) -> dict[str, VerifyKey]:
        if server_name == self.own.server_name:
            return self.own.verify_keys(key_ids, valid_at_ts)
        known = self._known.get(server_name, {})
        return {
            key_id: known[key_id].verify_key
            for key_id in key_ids
            if key_id in known and known[key_id].valid_until_ts >= valid_at_ts
        }

    def _lacking(self, wanted: Mapping[str, set[str]], valid_at_ts: int) -> dict[str, set[str]]:
        """Servers of which something is missing that asking might bring."""
        lacking = {}
        for name, key_ids in wanted.items():
            if not self._waits.may_ask(name):
                continue
            missing = key_ids - self._valid(name, key_ids, valid_at_ts).keys()
            if missing:
                lacking[name] = missing
        return lacking

    async def _load(self, server_names: list[str]) -> None:
        if not server_names:
            return
        try:
            rows = await self._database.run_single(lambda cur: server_keys.keys_of_servers(cur, server_names))
        except DatabaseUnavailable:
            return
        for name in server_names:
            if name not in self._known:
                stored = rows.get(name, {})
                self._remember(name, {one: ServerKey(VerifyKey(row[0]), row[1]) for one, row in stored.items()})

    def _remember(self, server_name: str, keys: dict[str, ServerKey]) -> None:
        self._known[server_name] = keys
        self._known.move_to_end(server_name)
        if len(self._known) > MAX_CACHED_SERVERS:
            self._known.popitem(last=False)

    # -- fetching

    async def _fetch_once(self, server_name: str, valid_at_ts: int) -> None:
        """Whoever wants the same server's keys meanwhile waits for the same fetch."""
        waiting = self._under_way.get(server_name)
        if waiting is not None:
            later: Deferred[None] = Deferred()
            waiting.append(later)
            await later
            return
        self._under_way[server_name] = []
        try:
            await self._slots.run(lambda: Deferred.fromCoroutine(self._fetch(server_name, valid_at_ts)))
        finally:
            for later in self._under_way.pop(server_name):
                later.callback(None)

    async def _fetch(self, server_name: str, valid_at_ts: int) -> None:
        before = dict(self._known.get(server_name, {}))
        heard = await self._ask_directly(server_name)
        if heard is not _Heard.KEYS:
            await self._ask_notaries({server_name: set()}, valid_at_ts)
        news = self._known.get(server_name, {}) != before
        self._waits.asked(server_name, silent=heard is _Heard.NOTHING, news=news)

    async def _ask_directly(self, server_name: str) -> _Heard:
        try:
            body = await self._client.unsigned_get(server_name, DIRECT_PATH, MAX_ANSWER_BYTES)
            answer = check(canonical_json.decode_strict(body), self.now_ms())
            if answer.server_name != server_name:
                raise KeyAnswerError(f"it is for {answer.server_name}")
        except (PeerUnreachable, MatrixError, KeyAnswerError) as problem:
            _log.info("keys of {name}: {problem}", name=server_name, problem=problem)
            return _Heard.NOTHING if isinstance(problem, PeerUnreachable) else _Heard.REFUSAL
        # What the server says itself, over TLS in its name, replaces what was known.
        await self._accept(answer, answer.keys)
        return _Heard.KEYS

    async def _ask_notaries(self, lacking: Mapping[str, set[str]], valid_at_ts: int) -> None:
        for notary in self._notaries:
            left = sorted(self._lacking(lacking, valid_at_ts)) if len(lacking) > 1 else list(lacking)
            left = [name for name in left if name != notary.server_name]
            for start in range(0, len(left), NOTARY_BATCH):
                batch = {name: lacking[name] for name in left[start : start + NOTARY_BATCH]}
                try:
                    await self._ask_notary(notary, batch, valid_at_ts)
                except (PeerUnreachable, RequestRefused, SignatureError, KeyAnswerError) as problem:
                    _log.info("notary {name}: {problem}", name=notary.server_name, problem=problem)
                    break

    async def _ask_notary(self, notary: Notary, batch: Mapping[str, set[str]], valid_at_ts: int) -> None:
        criteria = {
            name: {key_id: {"minimum_valid_until_ts": valid_at_ts} for key_id in sorted(ids)}
            for name, ids in batch.items()
        }
        answer = await self._client.request(
            notary.server_name,
            "POST",
            "/_matrix/key/v2/query",
            {"server_keys": criteria},
            timeout=30.0,
            max_bytes=NOTARY_ANSWER_BYTES,
        )
        documents = answer.get("server_keys") if isinstance(answer, dict) else None
        if not isinstance(documents, list):
            raise KeyAnswerError("it has no server_keys")
        for document in documents[: 4 * NOTARY_BATCH]:
            try:
                checked = check(document, self.now_ms())
                if checked.server_name not in batch:
                    raise KeyAnswerError(f"nobody asked for {checked.server_name}")
                await self._check_notary(notary, checked.document)
                await self._accept(checked, self._without_changes(checked))
            except (KeyAnswerError, SignatureError) as problem:
                _log.info("from notary {name}: {problem}", name=notary.server_name, problem=problem)

    async def _check_notary(self, notary: Notary, document: dict[str, Any]) -> None:
        if notary.verify_keys:
            verify_signed_json(document, notary.server_name, notary.verify_keys)
        else:
            await self.verify_json(document, notary.server_name)

    def _without_changes(self, answer: KeyAnswer) -> Mapping[str, ServerKey]:
        """A notary may add keys and prolong them; a known key with other bytes discredits the answer."""
        known = self._known.get(answer.server_name, {})
        for key_id, key in answer.keys.items():
            if key_id in known and bytes(known[key_id].verify_key) != bytes(key.verify_key):
                raise KeyAnswerError(f"another key than the known one for {answer.server_name} {key_id}")
        return {
            key_id: key
            for key_id, key in answer.keys.items()
            if key_id not in known or key.valid_until_ts > known[key_id].valid_until_ts
        }

    async def _accept(self, answer: KeyAnswer, keys: Mapping[str, ServerKey]) -> None:
        name, now = answer.server_name, self.now_ms()
        self._remember(name, {**self._known.get(name, {}), **keys})
        rows = {key_id: KeyRow(bytes(key.verify_key), key.valid_until_ts) for key_id, key in keys.items()}
        row = AnswerRow(orjson.dumps(answer.document).decode(), answer.valid_until_ts, now, sorted(answer.keys))

        def work(cur: Any) -> None:
            server_keys.upsert_keys(cur, name, rows)
            server_keys.add_answer(cur, name, row)

        try:
            await self._database.run(work)
        except DatabaseUnavailable as problem:
            _log.warn("keys of {name} are not kept: {problem}", name=name, problem=problem)

    # -- as a notary

    async def answers_of(
        self, server_name: str, minimum_valid_until_ts: int, key_ids: Collection[str] = ()
    ) -> list[dict[str, Any]]:
        """A server's answers as it signed them, asked for again when the newest is old; none when they can't be had.

        The newest, and earlier ones for keys that it has dropped. Only those with one of ``key_ids``, if any has one.
        """
        rows = await self._stored_answers(server_name)
        now = self.now_ms()
        # The specification has notaries keep an answer for half of its lifetime. Keys of the past do not age.
        fresh = bool(rows) and now < (rows[0].fetched_ts + rows[0].valid_until_ts) // 2
        past = minimum_valid_until_ts < now and _hold(rows, key_ids, minimum_valid_until_ts)
        old = not fresh or rows[0].valid_until_ts < minimum_valid_until_ts
        if old and not past and self._waits.may_ask(server_name):
            await self._load([server_name] if server_name not in self._known else [])
            await self._fetch_once(server_name, minimum_valid_until_ts)
            rows = await self._stored_answers(server_name)
        asked = [row for row in rows if not set(key_ids).isdisjoint(row.key_ids)]
        return [orjson.loads(row.answer_json) for row in asked or rows]

    async def _stored_answers(self, server_name: str) -> list[AnswerRow]:
        return await self._database.run_single(lambda cur: server_keys.answers_of_server(cur, server_name))


def _hold(rows: Sequence[AnswerRow], key_ids: Collection[str], valid_until_ts: int) -> bool:
    """Whether these answers have all of some keys, at least one, for a time (ms)."""
    held = {key_id for row in rows if row.valid_until_ts >= valid_until_ts for key_id in row.key_ids}
    return bool(key_ids) and held.issuperset(key_ids)


def _needed(event: Event) -> dict[str, set[str]]:
    """The ids of the keys with which the required servers have signed. Raises SignatureError."""
    signatures = event.pdu.get("signatures")
    needed: dict[str, set[str]] = {}
    for name in required_signatures(event):
        of_server = signatures.get(name) if isinstance(signatures, dict) else None
        if not isinstance(of_server, dict) or not of_server:
            raise SignatureError(f"No signature of {name}")
        own = (key_id for key_id in list(of_server)[:16] if key_id != POLICY_KEY_ID)
        needed[name] = {key_id for key_id in own if is_valid_key_id(key_id)}
    return needed
