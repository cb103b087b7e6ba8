"""The table of routes: what an endpoint declares, and how a path finds it.

A path is split at its slashes first and percent-decoded segment by segment after that, so that an encoded
slash inside a room alias or event id stays part of it. Fixed segments win over parameters.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from federation.rules.errors import MatrixError
from homeserver.web.call import decode_percent


class Auth(Enum):
    """Who may call a route."""

    NONE = auto()
    """Anybody; a token is not looked at."""
    OPTIONAL = auto()
    """Anybody; with a token, `call.sender` says who, and a wrong token is refused."""
    USER = auto()
    """Users with an account; guests are refused with M_GUEST_ACCESS_FORBIDDEN."""
    GUEST = auto()
    """Users and guests."""
    LOCKED = auto()
    """Users and guests, also those whose account is locked (Client-Server API, "Account locking")."""
    SERVER_ADMIN = auto()
    """Administrators of this server."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `path` is the specification's full path, ``/_matrix/client/v3/rooms/{roomId}/leave``.

    `handler` takes the `Call` and returns a dict (200) or an `Answer`, or a coroutine or Deferred of them. `limit`
    names the rate limit that each call takes a token from, by user or, without one, by address.
    `body_limit` is in bytes, None for the server's usual one. `aliases` are further full paths with the
    same parameters (unstable prefixes, older versions).
    """

    method: str
    path: str
    handler: Callable[[Any], Any]
    auth: Auth = Auth.USER
    limit: str | None = None
    body_limit: int | None = None
    aliases: tuple[str, ...] = ()


class _Node:
    __slots__ = ("fixed", "methods", "parameter")

    def __init__(self) -> None:
        self.fixed: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.methods: dict[str, tuple[Route, tuple[str, ...]]] = {}


class RouteTable:
    """All routes of a listener, as a tree by path segment."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Raises ValueError when two routes claim the same method and path."""
        self.routes: tuple[Route, ...] = tuple(routes)
        self._root = _Node()
        self._whole: dict[str, _Node] = {}
        for route in self.routes:
            for path in (route.path, *route.aliases):
                self._add(path, route)

    def _add(self, path: str, route: Route) -> None:
        node = self._root
        names = []
        for segment in path.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.fixed.setdefault(segment, _Node())
        if route.method in node.methods:
            raise ValueError(f"two routes for {route.method} {path}")
        node.methods[route.method] = (route, tuple(names))
        if not names:
            self._whole[path] = node

    def find(self, method: str, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        """The route of a request and its path parameters, decoded.

        Raises MatrixError M_UNRECOGNIZED: 404 for an unknown path, 405 for a known one that lacks the
        method; 400 M_INVALID_PARAM for a path that is not percent-encoded UTF-8.
        """
        # Of the versions before v1.1 only the prefix differs: r0 means v3.
        if raw_path.startswith("/_matrix/client/r0/"):
            raw_path = "/_matrix/client/v3/" + raw_path[19:]
        node = self._whole.get(raw_path)
        values: list[str] = []
        if node is None:
            segments = raw_path.split("/", 24)[1:]
            if "%" in raw_path:
                segments = [decode_percent(segment) if "%" in segment else segment for segment in segments]
            node = _walk(self._root, segments, 0, values)
            if node is None:
                raise MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request")
        found = node.methods.get(method)
        if found is None:
            # RFC 9110 section 9.3.2: HEAD is GET without the body, which the transport leaves out.
            found = node.methods.get("GET") if method == "HEAD" else None
            if found is None:
                raise MatrixError(405, "M_UNRECOGNIZED", "Method not allowed here")
        route, names = found
        return route, dict(zip(names, values, strict=True)) if names else _NO_PARAMETERS


_NO_PARAMETERS: Mapping[str, str] = {}


def _walk(node: _Node, segments: list[str], index: int, values: list[str]) -> _Node | None:
    """Follow the segments from `index`; collects the parameters' values. Tries fixed segments before
    parameters.
    """
    while index < len(segments):
        segment = segments[index]
        index += 1
        fixed = node.fixed.get(segment)
        if node.parameter is None or not segment:
            if fixed is None:
                return None
            node = fixed
            continue
        if fixed is not None:
            kept = len(values)
            found = _walk(fixed, segments, index, values)
            if found is not None:
                return found
            del values[kept:]
        values.append(segment)
        node = node.parameter
    return node if node.methods else None
