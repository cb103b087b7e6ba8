"""Server access control lists, and the glob-style matching of server names that they need.

Specification: Client-Server API, "Server Access Control Lists (ACLs) for rooms"; appendices, "Glob-style Matching".
Whoever may write state writes the patterns, by the thousand if they like: there is no regular expression here and no
backtracking over stars, so that a list costs at most the length of its text times that of a server name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from federation.rules.endpoint import MAX_SERVER_NAME_BYTES, parse_server_name


class ServerGlobs:
    """Patterns made ready to be compared with host names, ignoring case."""

    __slots__ = ("_all", "_literals", "_suffixes", "_wild")

    def __init__(self, patterns: Iterable[object]) -> None:
        """Whatever is not a string counts as not written."""
        self._literals: set[str] = set()
        self._suffixes: set[str] = set()
        self._wild: list[list[str]] = []
        self._all = False
        for pattern in patterns:
            if isinstance(pattern, str):
                self._add(pattern.lower())

    def _add(self, pattern: str) -> None:
        pieces = pattern.split("*")
        if len(pattern) - pattern.count("*") > MAX_SERVER_NAME_BYTES:
            return  # longer than any server name
        if not any(pieces) and len(pieces) > 1:
            self._all = True
        elif "?" in pattern:
            self._wild.append(_without_empty_middle(pieces))
        elif len(pieces) == 1:
            self._literals.add(pattern)
        elif len(pieces) == 2 and pieces[0] == "" and pieces[1].startswith("."):
            self._suffixes.add(pieces[1])
        else:
            self._wild.append(_without_empty_middle(pieces))

    def match(self, host: str) -> bool:
        """Whether any pattern matches the whole of a host name."""
        if self._all:
            return True
        host = host.lower()
        if host in self._literals:
            return True
        if self._suffixes and any(
            char == "." and host[place:] in self._suffixes for place, char in enumerate(host)
        ):
            return True
        return any(_matches(pieces, host) for pieces in self._wild)


class ServerAcl:
    """The ``content`` of an ``m.room.server_acl`` event, ready to be asked."""

    __slots__ = ("_allow", "_deny", "_ip_literals")

    def __init__(self, content: Mapping[str, Any]) -> None:
        """Fields of a wrong type count as missing: no ``allow`` allows nobody."""
        self._ip_literals = content.get("allow_ip_literals") is not False
        self._allow = ServerGlobs(_list(content.get("allow")))
        self._deny = ServerGlobs(_list(content.get("deny")))

    def allows(self, server_name: str) -> bool:
        """Whether a server may take part in the room. Its port does not matter. What is no server name may not."""
        parsed = parse_server_name(server_name)
        if parsed is None:
            return False
        if parsed.is_ip_literal and not self._ip_literals:
            return False
        # Patterns are written as in server names, where an IPv6 literal stands in brackets.
        host = f"[{parsed.host}]" if parsed.kind == "ipv6" else parsed.host
        return not self._deny.match(host) and self._allow.match(host)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _without_empty_middle(pieces: list[str]) -> list[str]:
    """Stars side by side are one star."""
    return [pieces[0], *(piece for piece in pieces[1:-1] if piece), *pieces[1:][-1:]]


def _matches(pieces: list[str], text: str) -> bool:
    """Whether pieces with stars between them make up a text; the leftmost place for each piece is good enough."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return len(first) == len(text) and _stands_at(first, text, 0)
    end = len(text) - len(last)
    place = len(first)
    if place > end or not _stands_at(first, text, 0) or not _stands_at(last, text, end):
        return False
    for piece in pieces[1:-1]:
        found = _find(piece, text, place, end)
        if found < 0:
            return False
        place = found + len(piece)
    return True


def _stands_at(piece: str, text: str, place: int) -> bool:
    if "?" not in piece:
        return text.startswith(piece, place)
    return all(
        mine in ("?", char) for mine, char in zip(piece, text[place : place + len(piece)], strict=True)
    )


def _find(piece: str, text: str, start: int, end: int) -> int:
    if "?" not in piece:
        return text.find(piece, start, end)
    for place in range(start, end - len(piece) + 1):
        if _stands_at(piece, text, place):
            return place
    return -1
