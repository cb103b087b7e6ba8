"""Which servers a room lets in: ``m.room.server_acl``.

Client-Server API, "Server Access Control Lists (ACLs) for rooms". Matching takes time linear in the text for each entry,
whatever wildcards it has; literal entries are looked up at once.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from federation.rules.endpoint import parse_server_name

MAX_ENTRIES = 20_000
"""Entries of a list that are read; an event of 64 KiB can hold no more that mean something."""


class ServerAcl:
    """One ``m.room.server_acl`` made ready to be asked."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._allow = _Names(content.get("allow"))
        self._deny = _Names(content.get("deny"))
        self._ip_literals = content.get("allow_ip_literals") is not False

    def allows(self, server_name: str) -> bool:
        """Whether the server may take part. The port of its name does not count, nor does case."""
        parsed = parse_server_name(server_name)
        if parsed is None:
            return False
        if parsed.is_ip_literal and not self._ip_literals:
            return False
        host = f"[{parsed.host}]" if parsed.kind == "ipv6" else parsed.host
        host = host.lower()
        return host not in self._deny and host in self._allow


class _Names:
    def __init__(self, entries: object) -> None:
        self._literal: set[str] = set()
        patterns: dict[str, None] = {}
        for entry in _strings(entries):
            if "*" in entry or "?" in entry:
                patterns[entry.lower()] = None
            else:
                self._literal.add(entry.lower())
        self._everybody = "*" in patterns
        self._patterns = tuple(patterns)

    def __contains__(self, host: str) -> bool:
        if self._everybody or host in self._literal:
            return True
        return any(matches(pattern, host) for pattern in self._patterns)


def _strings(entries: object) -> Iterable[str]:
    return (entry for entry in entries[:MAX_ENTRIES] if isinstance(entry, str)) if isinstance(entries, list) else ()


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text fits a glob of ``*`` and ``?``: between stars the leftmost match is as good as any."""
    at = place = 0
    star = resume = -1
    while place < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, place
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[place]):
            at += 1
            place += 1
        elif star >= 0:
            resume += 1
            at, place = star + 1, resume
        else:
            return False
    return all(letter == "*" for letter in pattern[at:])
