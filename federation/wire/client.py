"""Signed requests to other servers.

Specification: Server-Server API, "API standards" and "Request Authentication". Every request goes through the
operator's lists, the destination's back-off, discovery, and the bounded HTTPS of ``http``.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from federation.ports import Destinations
from federation.rules import canonical_json
from federation.rules.errors import MatrixError
from federation.rules.hashes import encode_base64
from federation.rules.signing import SigningKey
from federation.wire.discovery import DiscoveryFailed, Route
from federation.wire.domains import Domains
from federation.wire.errors import (
    AnswerNotUnderstood,
    AnswerTooLarge,
    PeerNotAllowed,
    PeerUnreachable,
    RequestRefused,
)
from federation.wire.http import ConnectFailure, Http, HttpAnswer, HttpFailure, HttpRequest, TooLarge
from federation.wire.resolver import Resolver

SMALL = 1 << 20
MAX_TARGETS = 3
MAX_ERROR_LENGTH = 500
MAX_VERSION_LENGTH = 32


class FederationClient:
    """Asks other servers in our name."""

    def __init__(
        self,
        signing_key: SigningKey,
        server_name: str,
        resolver: Resolver,
        http: Http,
        domains: Domains,
        destinations: Destinations,
        user_agent: str,
        seconds: float = 60.0,
    ) -> None:
        """``seconds`` is the usual time limit of a request."""
        self._key = signing_key
        self._server_name = server_name
        self._resolver = resolver
        self._http = http
        self._domains = domains
        self._destinations = destinations
        self._user_agent = user_agent
        self._seconds = seconds

    async def request(
        self,
        destination: str,
        method: str,
        uri: str,
        content: Any = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109
        max_bytes: int = SMALL,
        ignore_back_off: bool = False,
        decode: Callable[[bytes], Any] = canonical_json.decode_strict,
    ) -> Any:
        """One signed request; the decoded answer.

        ``uri`` begins with ``/_matrix`` and carries the query, percent-encoded. ``content`` is a JSON value, None for
        no body. Raises PeerUnreachable or RequestRefused; MatrixError 400 when ``content`` is not JSON.
        """
        body = None if content is None else canonical_json.encode_lax(content)
        answer = await self._send(destination, method, uri, body, timeout, max_bytes, ignore_back_off)
        try:
            return decode(answer.body)
        except MatrixError as error:
            raise AnswerNotUnderstood(destination, f"its answer is not JSON: {error.error}") from None

    async def send_transaction(self, server: str, txn_id: str, body: bytes) -> Mapping[str, Any]:
        """PUT a transaction, whose body is canonical JSON. Asks no back-off: the queue keeps its own.

        Raises PeerUnreachable, RequestRefused.
        """
        uri = f"/_matrix/federation/v1/send/{txn_id}"
        answer = await self._send(server, "PUT", uri, body, None, SMALL, True)
        try:
            decoded = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            decoded = None
        if not isinstance(decoded, dict):
            raise AnswerNotUnderstood(server, "its answer to a transaction is not a JSON object")
        return decoded

    async def unsigned_get(self, destination: str, uri: str, max_bytes: int) -> bytes:
        """A GET without our signature, for keys. Raises as ``request``.

        Back-off does not hold it up: often the server has just called us, and the key ring counts its own failures.
        """
        return (await self._send(destination, "GET", uri, None, 20.0, max_bytes, True, signed=False)).body

    async def unsigned_get_at(self, server_name: str, address: str, uri: str, max_bytes: int) -> bytes:
        """A GET of a server at an ``m.server`` value that is not decided upon yet. Raises as ``request``."""
        self._check_domain(server_name)
        try:
            route = await self._resolver.resolve_delegated(address)
            answer = await self._try_targets(route, "GET", uri, self._headers(None), None, 20.0, max_bytes)
        except (DiscoveryFailed, HttpFailure) as failure:
            raise PeerUnreachable(server_name, str(failure)) from failure
        if answer.status != 200:
            raise PeerUnreachable(server_name, f"status {answer.status}")
        return answer.body

    async def _send(
        self,
        destination: str,
        method: str,
        uri: str,
        body: bytes | None,
        seconds: float | None,
        max_bytes: int,
        ignore_back_off: bool,
        signed: bool = True,
    ) -> HttpAnswer:
        self._check_domain(destination)
        if not ignore_back_off:
            retry_at = self._destinations.refused_until(destination)
            if retry_at is not None:
                raise PeerUnreachable(destination, "it did not answer before; waiting", retry_at)
        headers = self._headers(body)
        if signed:
            headers["Authorization"] = self.authorization(destination, method, uri, body)
        try:
            route = await self._resolver.resolve(destination)
            answer = await self._try_targets(
                route, method, uri, headers, body, seconds or self._seconds, max_bytes
            )
        except TooLarge as failure:
            raise AnswerTooLarge(destination, str(failure)) from failure
        except (DiscoveryFailed, HttpFailure) as failure:
            self._destinations.failed(destination, str(failure))
            raise PeerUnreachable(destination, str(failure)) from failure
        return self._judge(destination, answer)

    def _check_domain(self, destination: str) -> None:
        if destination == self._server_name:
            raise PeerNotAllowed(destination, "that is this server itself")
        if not self._domains.permit(destination):
            raise PeerNotAllowed(destination, "this server does not federate with it")

    def _headers(self, body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": self._user_agent, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def authorization(self, destination: str, method: str, uri: str, body: bytes | None) -> str:
        """The X-Matrix header for a request whose body, if any, is canonical JSON."""
        signed = {"destination": destination, "method": method, "origin": self._server_name, "uri": uri}
        message = orjson.dumps(signed)
        if body is not None:
            # "content" sorts before the other keys: the body need not be parsed and encoded again.
            message = b'{"content":' + body + b"," + message[1:]
        signature = encode_base64(self._key.sign(message))
        return (
            f'X-Matrix origin="{self._server_name}",destination="{destination}",'
            f'key="{self._key.key_id}",sig="{signature}"'
        )

    async def _try_targets(
        self,
        route: Route,
        method: str,
        uri: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
        max_bytes: int,
    ) -> HttpAnswer:
        failure: ConnectFailure | None = None
        for target in route.targets[:MAX_TARGETS]:
            try:
                request = HttpRequest(target, route.tls_name, route.host_header, method, uri, headers, body)
                return await self._http.request(request, seconds, max_bytes)
            except ConnectFailure as problem:
                failure = problem
        raise failure or ConnectFailure("there is nowhere to connect to")

    def _judge(self, destination: str, answer: HttpAnswer) -> HttpAnswer:
        status = answer.status
        if 200 <= status < 300:
            self._destinations.succeeded(destination)
            return answer
        errcode, error, wait, room_version = _matrix_error(answer)
        if status >= 500 or status == 429:
            self._destinations.failed(destination, f"status {status}")
        elif status >= 400 and errcode:
            self._destinations.succeeded(destination)
        if 300 <= status < 400:
            raise PeerUnreachable(destination, f"it redirects (status {status}), which is not followed")
        raise RequestRefused(destination, status, errcode or "M_UNKNOWN", error or f"status {status}", wait, room_version)


def _matrix_error(answer: HttpAnswer) -> tuple[str, str, int | None, str | None]:
    """``errcode``, ``error``, ``retry_after_ms`` and ``room_version`` of an answer, empty when it carries none."""
    wait: int | None = None
    header = answer.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        wait = int(header[:9]) * 1000
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        return "", "", wait, None
    errcode, error, told = body.get("errcode"), body.get("error"), body.get("retry_after_ms")
    if type(told) is int and wait is None:
        wait = max(0, told)
    room_version = body.get("room_version")
    return (
        errcode[:100] if isinstance(errcode, str) else "",
        error[:MAX_ERROR_LENGTH] if isinstance(error, str) else "",
        wait,
        room_version[:MAX_VERSION_LENGTH] if isinstance(room_version, str) else None,
    )
