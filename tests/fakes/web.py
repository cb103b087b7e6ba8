"""A client without sockets: it drives a `Router` as the HTTP listener would."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from homeserver.web.call import Answer, Call
from homeserver.web.router import Router


class Client:
    """Calls a router. `token` is the access token for calls that do not name another."""

    def __init__(self, router: Router, token: str | None = None, address: str = "192.0.2.1") -> None:
        self.router = router
        self.token = token
        self.address = address

    def call(
        self,
        method: str,
        path: str,
        body: object = b"",
        *,
        token: str | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Call:
        """A call ready to be handed to the router. `body`: bytes as they are, anything else as JSON."""
        token = token if token is not None else self.token
        all_headers = {name.lower(): value for name, value in (headers or {}).items()}
        if token is not None:
            all_headers["authorization"] = f"Bearer {token}"
        if query:
            path += "?" + urlencode(query, doseq=True)
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return Call(method, path, all_headers, raw, self.address)

    async def answer(self, method: str, path: str, body: object = b"", **rest: Any) -> Answer:
        """The router's answer, as the handler made it."""
        return await self.router.handle(self.call(method, path, body, **rest))

    async def request(self, method: str, path: str, body: object = b"", **rest: Any) -> tuple[int, Any]:
        """Status and decoded JSON of the answer, encoded and decoded as on the wire."""
        answer = await self.answer(method, path, body, **rest)
        return answer.status, orjson.loads(answer.encoded())
