"""A blocking HTTP caller for the contract tests: one request, status, headers and parsed answer."""

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class Reply:
    """An answer; ``body`` is its JSON, or the bytes when it is none."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def errcode(self) -> str | None:
        """The Matrix error code, if the answer is a Matrix error."""
        return self.body.get("errcode") if isinstance(self.body, dict) else None


@dataclass(frozen=True)
class Caller:
    """Calls a server at an address."""

    host: str
    port: int

    def call(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        query: dict[str, str] | None = None,
        body: object = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send one request. `body` becomes JSON; `raw` goes as it is, declared to be JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if raw is None and body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request(method, path + ("?" + urlencode(query) if query else ""), raw, sent)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        try:
            parsed = json.loads(data)
        except ValueError:
            parsed = data
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, parsed)
