"""Fetching ``/.well-known/matrix/server``, bounded in size, redirects, time and cache lifetime.

Specification: Server-Server API, "Server discovery" step 3. Nothing secret is sent, here or to where it redirects.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from federation.rules.endpoint import parse_server_name
from federation.wire.discovery import Target
from federation.wire.http import Http, HttpFailure, HttpRequest
from federation.wire.well_known import MAX_BYTES, Record, WellKnownError, parse

PATH = "/.well-known/matrix/server"
MAX_REDIRECTS = 5
TOTAL_SECONDS = 30.0

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DEFAULT_LIFETIME_MS = 24 * HOUR_MS
MIN_LIFETIME_MS = 5 * MINUTE_MS
MAX_LIFETIME_MS = 48 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch gave: a record or None, what happened, for how long (ms) to keep a record."""

    record: Record | None
    note: str
    lifetime_ms: int = 0


class WellKnownFetch:
    """Fetches documents; keeps nothing."""

    def __init__(self, http: Http, now_ms: Callable[[], int], user_agent: str) -> None:
        self._http = http
        self._now_ms = now_ms
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}

    async def fetch(self, host: str) -> Fetched:
        """The document of a host. Never raises for what another server does."""
        url = f"https://{host}{PATH}"
        deadline = self._now_ms() + int(TOTAL_SECONDS * 1000)
        seen = set()
        for _ in range(MAX_REDIRECTS + 1):
            if url in seen:
                return Fetched(None, f"redirects in a circle at {url}")
            seen.add(url)
            place = place_of(url)
            if place is None:
                return Fetched(None, f"redirected to {url[:200]}, which is not followed")
            target, host_header, path = place
            seconds = min((deadline - self._now_ms()) / 1000, TOTAL_SECONDS)
            if seconds <= 0:
                return Fetched(None, "took too long")
            try:
                request = HttpRequest(target, target.host, host_header, "GET", path, self._headers)
                answer = await self._http.request(request, seconds, MAX_BYTES)
            except HttpFailure as failure:
                return Fetched(None, str(failure))
            location = answer.headers.get("location")
            if answer.status in (301, 302, 303, 307, 308) and location:
                url = urljoin(url, location)
                continue
            if answer.status != 200:
                return Fetched(None, f"status {answer.status}")
            try:
                record = parse(answer.body)
            except WellKnownError as problem:
                return Fetched(None, str(problem))
            return Fetched(record, f"m.server {record.address}", lifetime(answer.headers, self._now_ms()))
        return Fetched(None, f"more than {MAX_REDIRECTS} redirects")


def lifetime(headers: Mapping[str, str], now_ms: int) -> int:
    """For how long a document may be kept, in milliseconds: what the headers say, within 5 minutes and 48 hours."""
    wanted = _from_headers(headers, now_ms)
    return max(MIN_LIFETIME_MS, min(MAX_LIFETIME_MS, DEFAULT_LIFETIME_MS if wanted is None else wanted))


def _from_headers(headers: Mapping[str, str], now_ms: int) -> int | None:
    directives = [part.strip().lower() for part in headers.get("cache-control", "").split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0
    for directive in directives:
        name, _, value = directive.partition("=")
        value = value.strip('"')
        if name == "max-age" and value.isascii() and value.isdigit():
            return int(value[:12]) * 1000
    expires = headers.get("expires")
    if expires is None:
        return None
    try:
        return int(parsedate_to_datetime(expires).timestamp() * 1000) - now_ms
    except (ValueError, TypeError, OverflowError, OSError):
        return 0


def place_of(url: str) -> tuple[Target, str, str] | None:
    """Where to connect for a URL, its Host header and path; None for what is not plain HTTPS."""
    try:
        parts = urlsplit(url)
        name = parse_server_name(parts.netloc)
        url.encode("ascii")
    except ValueError:
        return None
    if parts.scheme != "https" or name is None:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(not "!" <= char <= "~" for char in path):
        return None
    return Target(name.host, name.port or 443), parts.netloc, path
