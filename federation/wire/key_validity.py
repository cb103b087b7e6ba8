"""Asking an identity server whether it still stands by the key of a third-party invite.

Identity Service API, ``/pubkey/isvalid``; the URL is one that stands in a room's state, so it is fetched like anything
that strangers name: HTTPS, no forbidden addresses, bounded, no redirects.
"""

from urllib.parse import urlencode

import orjson

from federation.rules.errors import MatrixError
from federation.wire.http import Http, HttpFailure, HttpRequest
from federation.wire.well_known_fetch import place_of

SECONDS = 10.0
MAX_BYTES = 4096


class KeyValidity:
    """Asks; keeps nothing."""

    def __init__(self, http: Http, user_agent: str) -> None:
        self._http = http
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}

    async def is_valid(self, url: str, public_key: str) -> bool:
        """Whether a key is valid. MatrixError 502 when that cannot be found out."""
        place = place_of(f"{url}{'&' if '?' in url else '?'}{urlencode({'public_key': public_key})}")
        if place is None:
            raise MatrixError(502, "M_UNKNOWN", "The identity server's address is none that can be asked")
        target, host_header, path = place
        try:
            request = HttpRequest(target, target.host, host_header, "GET", path, self._headers)
            answer = await self._http.request(request, SECONDS, MAX_BYTES)
            body = orjson.loads(answer.body)
        except (HttpFailure, orjson.JSONDecodeError) as problem:
            raise MatrixError(502, "M_UNKNOWN", "The identity server does not say whether its key is valid") from problem
        return answer.status == 200 and isinstance(body, dict) and body.get("valid") is True
