"""What we ask of other servers, one method for each operation of the Server-Server API that a server calls.

Every method raises PeerUnreachable or RequestRefused (``federation.wire.errors``); an answer without the
shape of the specification counts as unreachable, because nothing can be done with it. Nothing in an answer is
verified here but its shape.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from federation.rules.canonical_json import CanonicalJSONError, decode_lax, decode_strict
from federation.rules.errors import MatrixError
from federation.wire.errors import AnswerNotUnderstood, RequestRefused

T = TypeVar("T")

SMALL = 1 << 20
EVENT = 256 << 10
PAGE = 20 << 20
SIGNATURES = 64 << 10
POLICY_SECONDS = 10.0
"""How long a user waits for their event to be recommended, and a room for what others send into it."""
QUICK_SECONDS = 20.0
SLOW_SECONDS = 60.0
STATE_SECONDS = 600.0


class SignedClient(Protocol):
    """The signed HTTP client (``federation.wire.client``)."""

    async def request(
        self,
        destination: str,
        method: str,
        uri: str,
        content: Any = None,
        *,
        timeout: float = 60.0,  # noqa: ASYNC109
        max_bytes: int = SMALL,
        ignore_back_off: bool = False,
        decode: Callable[[bytes], Any] = decode_strict,
    ) -> Any:
        """One signed request; the decoded answer. Raises PeerUnreachable, RequestRefused."""


class Template(msgspec.Struct):
    """Answer of make_join, make_leave and make_knock."""

    event: dict[str, Any]
    room_version: str = "1"


class JoinAnswer(msgspec.Struct):
    """Answer of send_join (v2). Events are slices of its bytes: parsed all at once they would take ten times the memory."""

    state: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]
    event: dict[str, Any] | None = None
    origin: str = ""
    members_omitted: bool = False
    servers_in_room: list[str] | None = None


class KnockAnswer(msgspec.Struct):
    """Answer of send_knock."""

    knock_room_state: list[dict[str, Any]]


class InviteAnswer(msgspec.Struct):
    """Answer of invite (v2)."""

    event: dict[str, Any]


class AliasAnswer(msgspec.Struct):
    """Answer of the directory query."""

    room_id: str
    servers: list[str]


class DevicesAnswer(msgspec.Struct):
    """Answer of /user/devices."""

    user_id: str
    stream_id: int
    devices: list[dict[str, Any]]
    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None


class KeysAnswer(msgspec.Struct):
    """Answer of /user/keys/query."""

    device_keys: dict[str, dict[str, dict[str, Any]]] = {}
    master_keys: dict[str, dict[str, Any]] = {}
    self_signing_keys: dict[str, dict[str, Any]] = {}


class ClaimAnswer(msgspec.Struct):
    """Answer of /user/keys/claim."""

    one_time_keys: dict[str, dict[str, dict[str, Any]]] = {}


class Pdus(msgspec.Struct):
    """Answer of /backfill: a transaction without EDUs."""

    pdus: list[dict[str, Any]]


class Events(msgspec.Struct):
    """Answer of get_missing_events."""

    events: list[dict[str, Any]]


class StateIds(msgspec.Struct):
    """Answer of state_ids."""

    pdu_ids: list[str]
    auth_chain_ids: list[str]


class StateEvents(msgspec.Struct):
    """Answer of state; events as in ``JoinAnswer``."""

    pdus: list[msgspec.Raw]
    auth_chain: list[msgspec.Raw]


class Chain(msgspec.Struct):
    """Answer of event_auth."""

    auth_chain: list[dict[str, Any]]


class Moment(msgspec.Struct):
    """Answer of timestamp_to_event."""

    event_id: str
    origin_server_ts: int


class Calls:
    """Typed calls over a signed client."""

    def __init__(self, client: SignedClient, max_state: int) -> None:
        """``max_state``: the most bytes of an answer that carries the state of a room."""
        self._client = client
        self._max_state = max_state

    async def send_transaction(self, server: str, txn_id: str, body: bytes) -> Mapping[str, Any]:
        """PUT send, for a client that has no way of its own for it."""
        answer = await self._ask(server, "PUT", f"/_matrix/federation/v1/send/{txn_id}", decode_lax(body))
        return answer if isinstance(answer, dict) else {}

    # -- membership --------------------------------------------------------------------------------------------------

    async def make(
        self, kind: str, server: str, room_id: str, user_id: str, versions: Sequence[str] = ()
    ) -> Template:
        """GET make_join, make_leave or make_knock: ``kind`` is ``join``, ``leave`` or ``knock``."""
        query = [("ver", version) for version in versions]
        uri = _uri(f"/_matrix/federation/v1/make_{kind}", room_id, user_id, query=query)
        return _shaped(server, await self._ask(server, "GET", uri, seconds=SLOW_SECONDS), Template)

    async def send_join(self, server: str, room_id: str, event_id: str, pdu: Any, omit_members: bool) -> JoinAnswer:
        """PUT send_join (v2; v1 where the server has no other)."""
        query = [("omit_members", "true")] if omit_members else []
        answer: JoinAnswer = await self._either(server, "send_join", room_id, event_id, pdu, query, JoinAnswer)
        return answer

    async def send_leave(self, server: str, room_id: str, event_id: str, pdu: Any) -> None:
        """PUT send_leave (v2; v1 where the server has no other)."""
        await self._either(server, "send_leave", room_id, event_id, pdu, [], dict[str, Any])

    async def send_knock(self, server: str, room_id: str, event_id: str, pdu: Any) -> KnockAnswer:
        """PUT send_knock."""
        uri = _uri("/_matrix/federation/v1/send_knock", room_id, event_id)
        return _shaped(server, await self._ask(server, "PUT", uri, pdu, seconds=SLOW_SECONDS), KnockAnswer)

    async def invite(
        self, server: str, room_id: str, event_id: str, pdu: Any, version: str, room_state: list[Any]
    ) -> InviteAnswer:
        """PUT invite (v2; v1 where the server has no other and the room version is one of the first two)."""
        uri = _uri("/_matrix/federation/v2/invite", room_id, event_id)
        body = {"event": pdu, "room_version": version, "invite_room_state": room_state}
        try:
            return _shaped(server, await self._ask(server, "PUT", uri, body, seconds=SLOW_SECONDS), InviteAnswer)
        except RequestRefused as refused:
            if not _unrecognized(refused) or version not in ("1", "2"):
                raise
        uri = _uri("/_matrix/federation/v1/invite", room_id, event_id)
        body = {**_plain(pdu), "unsigned": {"invite_room_state": room_state}}
        return _shaped(server, _second(await self._ask(server, "PUT", uri, body, seconds=SLOW_SECONDS)), InviteAnswer)

    async def exchange_third_party_invite(self, server: str, room_id: str, event: Mapping[str, Any]) -> None:
        """PUT exchange_third_party_invite: the inviting server makes the invite that ``event`` describes."""
        uri = _uri("/_matrix/federation/v1/exchange_third_party_invite", room_id)
        await self._ask(server, "PUT", uri, dict(event), seconds=SLOW_SECONDS)

    async def _either(
        self, server: str, name: str, room_id: str, event_id: str, pdu: Any, query: list[tuple[str, str]], type_: Any
    ) -> Any:
        uri = _uri(f"/_matrix/federation/v2/{name}", room_id, event_id, query=query)
        try:
            return await self._ask_state(server, "PUT", uri, pdu, type_)
        except RequestRefused as refused:
            if not _unrecognized(refused):
                raise
        uri = _uri(f"/_matrix/federation/v1/{name}", room_id, event_id)
        return (await self._ask_state(server, "PUT", uri, pdu, tuple[int, type_]))[1]

    async def _ask_state(self, server: str, method: str, uri: str, content: Any, type_: Any) -> Any:
        """A request whose answer may have the state of a room."""
        return await self._client.request(
            server, method, uri, content, timeout=STATE_SECONDS, max_bytes=self._max_state, decode=_decoder(type_)
        )

    # -- reads -------------------------------------------------------------------------------------------------------

    async def profile(self, server: str, user_id: str, field: str | None = None) -> dict[str, Any]:
        """GET query/profile."""
        query = [("user_id", user_id)] + ([("field", field)] if field is not None else [])
        answer = await self._ask(server, "GET", _uri("/_matrix/federation/v1/query/profile", query=query))
        return _shaped(server, answer, dict[str, Any])

    async def directory(self, server: str, alias: str) -> AliasAnswer:
        """GET query/directory."""
        uri = _uri("/_matrix/federation/v1/query/directory", query=[("room_alias", alias)])
        return _shaped(server, await self._ask(server, "GET", uri), AliasAnswer)

    async def public_rooms(self, server: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST publicRooms, GET where the server knows no other."""
        uri = "/_matrix/federation/v1/publicRooms"
        try:
            answer = await self._ask(server, "POST", uri, dict(body), max_bytes=4 * SMALL)
        except RequestRefused as refused:
            if not _unrecognized(refused) or body.get("filter"):
                raise
            query = [(key, str(body[key])) for key in ("limit", "since") if body.get(key) is not None]
            answer = await self._ask(server, "GET", _uri(uri, query=query), max_bytes=4 * SMALL)
        return _shaped(server, answer, dict[str, Any])

    async def keys_query(
        self, server: str, devices: Mapping[str, Sequence[str]], seconds: float
    ) -> KeysAnswer:
        """POST user/keys/query."""
        body = {"device_keys": devices}
        uri = "/_matrix/federation/v1/user/keys/query"
        return _shaped(server, await self._ask(server, "POST", uri, body, seconds, 10 * SMALL), KeysAnswer)

    async def keys_claim(
        self, server: str, wanted: Mapping[str, Mapping[str, str]], seconds: float
    ) -> ClaimAnswer:
        """POST user/keys/claim."""
        body = {"one_time_keys": wanted}
        uri = "/_matrix/federation/v1/user/keys/claim"
        return _shaped(server, await self._ask(server, "POST", uri, body, seconds, 10 * SMALL), ClaimAnswer)

    async def user_devices(self, server: str, user_id: str) -> DevicesAnswer:
        """GET user/devices/{userId}."""
        uri = _uri("/_matrix/federation/v1/user/devices", user_id)
        return _shaped(server, await self._ask(server, "GET", uri, max_bytes=4 * SMALL), DevicesAnswer)

    async def backfill(self, server: str, room_id: str, event_ids: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """GET backfill: events before and including these, newest first."""
        query = [("v", event_id) for event_id in event_ids] + [("limit", str(limit))]
        uri = _uri("/_matrix/federation/v1/backfill", room_id, query=query)
        answer = await self._ask(server, "GET", uri, seconds=SLOW_SECONDS, max_bytes=PAGE)
        return _shaped(server, answer, Pdus).pdus[:limit]

    async def missing_events(
        self, server: str, room_id: str, earliest: Sequence[str], latest: Sequence[str], limit: int, min_depth: int
    ) -> list[dict[str, Any]]:
        """POST get_missing_events."""
        uri = _uri("/_matrix/federation/v1/get_missing_events", room_id)
        body = {
            "earliest_events": list(earliest),
            "latest_events": list(latest),
            "limit": limit,
            "min_depth": min_depth,
        }
        answer = await self._ask(server, "POST", uri, body, SLOW_SECONDS, PAGE)
        return _shaped(server, answer, Events).events[:limit]

    async def state_ids(self, server: str, room_id: str, event_id: str) -> StateIds:
        """GET state_ids."""
        uri = _uri("/_matrix/federation/v1/state_ids", room_id, query=[("event_id", event_id)])
        return _shaped(server, await self._ask(server, "GET", uri, seconds=SLOW_SECONDS, max_bytes=PAGE), StateIds)

    async def state(self, server: str, room_id: str, event_id: str) -> StateEvents:
        """GET state: the same as whole events."""
        uri = _uri("/_matrix/federation/v1/state", room_id, query=[("event_id", event_id)])
        answer: StateEvents = await self._ask_state(server, "GET", uri, None, StateEvents)
        return answer

    async def event(self, server: str, event_id: str) -> dict[str, Any]:
        """GET event: one event."""
        answer = await self._ask(server, "GET", _uri("/_matrix/federation/v1/event", event_id))
        pdus = _shaped(server, answer, Pdus).pdus
        if len(pdus) != 1:
            raise AnswerNotUnderstood(server, f"{len(pdus)} events instead of one")
        return pdus[0]

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        """GET event_auth: the auth chain of an event."""
        uri = _uri("/_matrix/federation/v1/event_auth", room_id, event_id)
        answer = await self._ask(server, "GET", uri, seconds=SLOW_SECONDS, max_bytes=PAGE)
        return _shaped(server, answer, Chain).auth_chain

    async def timestamp_to_event(self, server: str, room_id: str, ts: int, direction: str) -> Moment:
        """GET timestamp_to_event."""
        uri = _uri("/_matrix/federation/v1/timestamp_to_event", room_id, query=[("ts", str(ts)), ("dir", direction)])
        return _shaped(server, await self._ask(server, "GET", uri), Moment)

    async def policy_sign(self, server: str, pdu: Any, although_silent: bool) -> dict[str, dict[str, Any]]:
        """POST sign: the signatures of a policy server; ``although_silent`` asks also while it is left alone."""
        answer = await self._client.request(
            server,
            "POST",
            "/_matrix/policy/v1/sign",
            pdu,
            timeout=POLICY_SECONDS,
            max_bytes=SIGNATURES,
            ignore_back_off=although_silent,
        )
        return _shaped(server, answer, dict[str, dict[str, Any]])

    async def _ask(
        self,
        server: str,
        method: str,
        uri: str,
        content: Any = None,
        seconds: float = QUICK_SECONDS,
        max_bytes: int = SMALL,
    ) -> Any:
        return await self._client.request(server, method, uri, content, timeout=seconds, max_bytes=max_bytes)


def refusal(error: Exception, what: str) -> MatrixError:
    """What a client is told when another server could not or would not do what it asked for.

    A refusal with an error of the specification is passed on, everything else is 502.
    """
    if isinstance(error, RequestRefused) and 400 <= error.status < 500:
        return MatrixError(error.status, error.errcode, f"{what}: {error.error}"[:500], **error.extra)
    return MatrixError(502, "M_UNKNOWN", f"{what}: {error}"[:500])


def _uri(path: str, *segments: str, query: Sequence[tuple[str, str]] = ()) -> str:
    whole = "/".join((path, *(quote(segment, safe="") for segment in segments)))
    return f"{whole}?{urlencode(query)}" if query else whole


def _shaped(server: str, answer: Any, type_: type[T]) -> T:
    try:
        return msgspec.convert(answer, type_)
    except msgspec.ValidationError as error:
        raise AnswerNotUnderstood(server, f"not the answer that was expected: {error}") from None


def _decoder(type_: Any) -> Callable[[bytes], Any]:
    """Decodes straight into a type. Events that are left raw are for their readers to check."""

    def decode(body: bytes) -> Any:
        try:
            return msgspec.json.decode(body, type=type_)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise CanonicalJSONError(str(error)) from None

    return decode


def _second(answer: Any) -> Any:
    """The answers of version 1 are lists of a status and the real answer."""
    return answer[1] if isinstance(answer, list) and len(answer) == 2 else answer


def _unrecognized(refused: RequestRefused) -> bool:
    """Whether the server does not know the operation at all."""
    return refused.errcode == "M_UNRECOGNIZED" or (refused.status in (404, 405) and refused.errcode == "M_UNKNOWN")


def _plain(pdu: Any) -> dict[str, Any]:
    return dict(pdu)
