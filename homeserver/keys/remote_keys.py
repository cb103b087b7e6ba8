"""Keys of other servers' users, asked for over federation; what comes back is held against what was asked."""

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime

from federation.outbound.calls import Calls
from federation.rules.errors import MatrixError
from federation.wire.errors import PeerUnreachable, RequestRefused
from homeserver.keys.remote import RemoteAnswer
from storage.tables.one_time_keys import Wanted

DEFAULT_TIMEOUT_MS = 10_000
MAX_TIMEOUT_MS = 60_000


class FederatedKeys:
    """The port `RemoteKeys` over signed calls."""

    def __init__(self, calls: Calls, clock: IReactorTime) -> None:
        self._calls = calls
        self._clock: Any = clock

    async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
        """Device and cross-signing keys; answers within the time, whatever the other server does."""
        seconds = seconds_of(timeout_ms)
        answer = await self._in_time(self._calls.keys_query(server, devices, seconds), seconds)
        if isinstance(answer, RemoteAnswer):
            return answer
        keys: dict[str, Any] = {
            "device_keys": {
                user_id: {
                    device_id: keys
                    for device_id, keys in of_user.items()
                    if keys.get("user_id") == user_id and keys.get("device_id") == device_id
                }
                for user_id, of_user in answer.device_keys.items()
                if user_id in devices
            },
            "master_keys": _own(answer.master_keys, devices),
            "self_signing_keys": _own(answer.self_signing_keys, devices),
        }
        return RemoteAnswer(keys, None)

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        """One key for each wish; answers within the time, whatever the other server does."""
        asked: dict[str, dict[str, str]] = {}
        for wish in wanted:
            asked.setdefault(wish.user_id, {})[wish.device_id] = wish.algorithm
        seconds = seconds_of(timeout_ms)
        answer = await self._in_time(self._calls.keys_claim(server, asked, seconds), seconds)
        if isinstance(answer, RemoteAnswer):
            return answer
        given: dict[str, dict[str, dict[str, Any]]] = {}
        for user_id, of_user in answer.one_time_keys.items():
            for device_id, keys in of_user.items():
                algorithm = asked.get(user_id, {}).get(device_id)
                of_kind = {name: key for name, key in keys.items() if name.partition(":")[0] == algorithm}
                if algorithm is not None and of_kind:
                    given.setdefault(user_id, {})[device_id] = of_kind
        return RemoteAnswer({"one_time_keys": given}, None)

    async def _in_time(self, question: Awaitable[Any], seconds: float) -> Any:
        """The answer, or a RemoteAnswer that tells why there is none."""
        asked: Deferred[Any] = Deferred.fromCoroutine(question)  # type: ignore[arg-type]
        asked.addTimeout(seconds, self._clock)
        try:
            return await asked
        except (RequestRefused, PeerUnreachable, TimeoutError, CancelledError) as problem:
            return RemoteAnswer({}, failure_of(problem, seconds))


def _own(keys: dict[str, dict[str, Any]], asked: dict[str, list[str]]) -> dict[str, Any]:
    """Cross-signing keys of those who were asked for, each under its owner."""
    return {user_id: key for user_id, key in keys.items() if user_id in asked and key.get("user_id") == user_id}


def seconds_of(timeout_ms: int) -> float:
    """How long a request of a client waits for another server."""
    return min(timeout_ms or DEFAULT_TIMEOUT_MS, MAX_TIMEOUT_MS) / 1000


def failure_of(problem: BaseException, seconds: float) -> dict[str, Any]:
    """What stands under `failures`: why a server gave no answer within ``seconds``."""
    status, errcode, error = 503, "M_UNKNOWN", str(problem)
    if isinstance(problem, MatrixError):
        status, errcode, error = problem.status, problem.errcode, problem.error
    elif isinstance(problem, TimeoutError | CancelledError):
        status, error = 504, f"No answer within {seconds:g} seconds"
    return {"status": status, "errcode": errcode, "error": error[:300]}
