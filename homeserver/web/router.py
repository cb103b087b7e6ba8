"""From a call to its answer: find the route, know the caller, check the rate limit, run the handler.

Everything that goes wrong on the way becomes a Matrix error object here, and nowhere else.
Specification: Client-Server API, "API Standards" and "Client authentication".
"""

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from federation.rules.errors import MatrixError
from homeserver.web.call import Answer, Call, Requester, error_answer
from homeserver.web.faults import describe_fault
from homeserver.web.limits import Limits
from homeserver.web.routes import Auth, Route, RouteTable
from homeserver.web.writes import READING, Writes
from storage.log.errors import LogUnavailable
from storage.tables.errors import TableError

__all__ = ["CORS_HEADERS", "Auth", "Authenticator", "Route", "Router"]

log = Logger()

# Specification: "Web Browser Clients". Tokens travel in a header that scripts set on purpose, never in
# cookies, so any page may call.
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization, Date",
    "Access-Control-Expose-Headers": "Retry-After",
}


class Authenticator(Protocol):
    """Knows access tokens."""

    def authenticate(self, token: str, address: str, user_agent: str) -> Requester | Awaitable[Requester]:
        """Whose token it is; at once when the session is in memory.

        Raises MatrixError 401 M_UNKNOWN_TOKEN (with `soft_logout` where it applies), 403 M_USER_LOCKED and
        the like.
        """

    def authenticate_even_locked(self, token: str, address: str, user_agent: str) -> Requester | Awaitable[Requester]:
        """The same, without M_USER_LOCKED."""


class Router:
    """Answers calls from a table of routes."""

    def __init__(
        self,
        routes: Iterable[Route],
        authenticator: Authenticator,
        limits: Limits,
        query_access_token: bool = False,
        body_limit: int = 1024 * 1024,
    ) -> None:
        """`body_limit` (bytes) holds for routes without their own. `query_access_token` also takes
        ``?access_token=``, for software from before Matrix 1.11.
        """
        self.table = RouteTable(routes)
        self._authenticator = authenticator
        self._limits = limits
        self._body_limit = body_limit
        self._query_access_token = query_access_token
        self.writes = Writes()

    def body_limit(self, method: str, raw_path: str) -> int:
        """How many bytes of body the route takes, for refusing more while they arrive."""
        try:
            limit = self.table.find(method, raw_path)[0].body_limit
        except MatrixError:
            limit = None
        return self._body_limit if limit is None else limit

    async def handle(self, call: Call) -> Answer:
        """The answer to a call. Never raises for what a caller or a handler did wrong."""
        outcome = self.start(call)
        return outcome if isinstance(outcome, Answer) else await outcome

    def start(self, call: Call) -> "Answer | Deferred[Answer]":
        """Like `handle`, without a coroutine or Deferred where the answer is there at once."""
        if call.method == "OPTIONS":
            return Answer(200, {})
        try:
            route, call.params = self.table.find(call.method, call.raw_path)
            if route.auth is not Auth.NONE:
                requester = self._requester(call, route.auth)
                if requester is not None and not isinstance(requester, Requester):
                    finish = Deferred.fromCoroutine(self._finish_authenticated(call, route, requester))
                    return finish if call.method in READING else self.writes.bounded(finish)
                if requester is not None:
                    admit(call, route.auth, requester)
            result = self._run(call, route)
            if type(result) is dict:
                return Answer(200, result)
            if isinstance(result, Answer):
                return result
            if isinstance(result, Deferred):
                result.addCallbacks(_as_answer, _refusal, errbackArgs=(call,))
            else:
                result = Deferred.fromCoroutine(self._finish(call, result))
            return result if call.method in READING else self.writes.bounded(result)
        except MatrixError as error:
            return error_answer(error)
        except Exception as error:
            return fault_answer(call, error)

    def _requester(self, call: Call, auth: Auth) -> Requester | Awaitable[Requester] | None:
        token = self._token(call)
        if token is None:
            if auth is Auth.OPTIONAL:
                return None
            raise MatrixError(401, "M_MISSING_TOKEN", "Missing access token")
        call.token = token
        if auth is Auth.LOCKED:
            return self._authenticator.authenticate_even_locked(token, call.address, call.user_agent)
        return self._authenticator.authenticate(token, call.address, call.user_agent)

    def _token(self, call: Call) -> str | None:
        """RFC 6750 section 2.1; an empty token counts as missing."""
        header = call.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() == "bearer":
                return token.strip() or None
        elif self._query_access_token:
            return call.query("access_token") or None
        return None

    def _run(self, call: Call, route: Route) -> Any:
        if call.method not in READING and (refusal := self.writes.refusal()) is not None:
            return refusal
        if route.limit is not None:
            sender = call.sender
            if sender is None:
                self._limits.take(route.limit, call.address)
            elif not sender.unlimited:
                self._limits.take(route.limit, sender.user_id)
        return route.handler(call)

    async def _finish_authenticated(self, call: Call, route: Route, requester: Awaitable[Requester]) -> Answer:
        try:
            admit(call, route.auth, await requester)
            result = self._run(call, route)
        except MatrixError as error:
            return error_answer(error)
        except Exception as error:
            return fault_answer(call, error)
        return await self._finish(call, result)

    async def _finish(self, call: Call, result: Any) -> Answer:
        try:
            if hasattr(result, "__await__"):
                result = await result
        except MatrixError as error:
            return error_answer(error)
        except Exception as error:
            return fault_answer(call, error)
        return _as_answer(result)


def _as_answer(result: Any) -> Answer:
    return result if isinstance(result, Answer) else Answer(200, result)


def _refusal(failure: Failure, call: Call) -> Answer:
    error = failure.value
    return error_answer(error) if isinstance(error, MatrixError) else fault_answer(call, error)


def admit(call: Call, auth: Auth, requester: Requester) -> None:
    """Let the requester through to a route, or raise MatrixError 403."""
    if requester.is_guest and auth is Auth.USER:
        raise MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests cannot do this")
    if auth is Auth.SERVER_ADMIN and not requester.is_admin:
        raise MatrixError(403, "M_FORBIDDEN", "Only administrators of this server can do this")
    call.sender = requester


def fault_answer(call: Call, error: BaseException | None) -> Answer:
    """A fault of ours: logged in full except for what the caller sent, answered without detail.

    A store that is away is no fault: 503, and asking again later is right.
    """
    if isinstance(error, TableError):
        return Answer(error.status, error.body(), headers={"Retry-After": "2"} if error.status == 503 else None)
    if isinstance(error, LogUnavailable):
        return Answer(error.status, {"errcode": error.errcode, "error": error.error}, headers={"Retry-After": "2"})
    log.error("{fault}", fault=describe_fault(call, error))
    return Answer(500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
