"""Other servers' keys, with our signature beside theirs (OpenAPI: keys_query). Anybody may ask.

Specification: Server-Server API, "Querying Keys Through Another Server".
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from federation.inbound.operation import Operation, PeerRequest
from federation.rules.errors import MatrixError
from federation.rules.ids import is_valid_server_name
from federation.rules.signing import sign_json
from federation.wire.domains import Domains
from federation.wire.keyring import KeyRing

MAX_SERVERS = 200
MAX_TS = 2**53 - 1


class KeysQuery:
    """``/_matrix/key/v2/query``."""

    def __init__(self, keys: KeyRing, domains: Domains, now_ms: Callable[[], int]) -> None:
        self._keys = keys
        self._domains = domains
        self._now_ms = now_ms

    def operations(self) -> list[Operation]:
        """What is answered here."""
        return [
            Operation("GET", "/_matrix/key/v2/query/{serverName}", self.query_one, signed=False),
            Operation("GET", "/_matrix/key/v2/query/{serverName}/{keyId}", self.query_one, signed=False),
            Operation("POST", "/_matrix/key/v2/query", self.query_many, signed=False),
        ]

    async def query_one(self, request: PeerRequest) -> dict[str, Any]:
        """One server's keys, an empty list when they can't be had."""
        minimum = request.number("minimum_valid_until_ts", self._now_ms(), 0, MAX_TS)
        key_ids = [request.params["keyId"]] if "keyId" in request.params else []
        return await self._answers({_server_name(request.params["serverName"]): (minimum, key_ids)})

    async def query_many(self, request: PeerRequest) -> dict[str, Any]:
        """Several servers' keys. At most 200."""
        asked = request.object().get("server_keys")
        if not isinstance(asked, dict):
            raise MatrixError(400, "M_BAD_JSON", "'server_keys' is not an object")
        if len(asked) > MAX_SERVERS:
            raise MatrixError(400, "M_TOO_LARGE", f"At most {MAX_SERVERS} servers in one query")
        return await self._answers({_server_name(name): self._wish(criteria) for name, criteria in asked.items()})

    def _wish(self, criteria: object) -> tuple[int, list[str]]:
        now = self._now_ms()
        if not isinstance(criteria, dict) or not all(isinstance(one, dict) for one in criteria.values()):
            raise MatrixError(400, "M_BAD_JSON", "The criteria of a server are objects by key ID")
        times = [one.get("minimum_valid_until_ts", now) for one in criteria.values()]
        if any(type(time) is not int for time in times):
            raise MatrixError(400, "M_BAD_JSON", "'minimum_valid_until_ts' is not an integer")
        return max(times, default=now), list(criteria)

    async def _answers(self, wanted: dict[str, tuple[int, list[str]]]) -> dict[str, Any]:
        found = await gatherResults(
            [Deferred.fromCoroutine(self._answers_of(name, *wish)) for name, wish in wanted.items()]
        )
        return {"server_keys": [answer for answers in found for answer in answers]}

    async def _answers_of(self, server_name: str, minimum: int, key_ids: list[str]) -> list[dict[str, Any]]:
        own = self._keys.own
        if server_name == own.server_name:
            return [own.answer()]
        if not self._domains.permit(server_name):
            return []
        answers = await self._keys.answers_of(server_name, minimum, key_ids)
        return [sign_json(answer, own.server_name, own.keys[0]) for answer in answers]


def _server_name(name: str) -> str:
    if not is_valid_server_name(name):
        raise MatrixError(400, "M_INVALID_PARAM", "Not a server name")
    return name
