"""The operator's lists of servers to federate with, and not to. Pure."""

from collections.abc import Iterable

from federation.rules.endpoint import parse_server_name
from federation.rules.server_acl import ServerGlobs


class Domains:
    """``federation_domain_whitelist`` and ``federation_domain_denylist``.

    Entries are server names or globs (``*.example.org``), with or without a port; one without a port holds for the
    host on every port. The deny-list wins.
    """

    def __init__(self, allow: Iterable[str] | None = None, deny: Iterable[str] = ()) -> None:
        """``allow`` is None when everybody is welcome; an empty list lets nobody in."""
        self._allow = None if allow is None else ServerGlobs(allow)
        self._deny = ServerGlobs(deny)

    def permit(self, server_name: str) -> bool:
        """Whether we talk with a server at all, in either direction."""
        parsed = parse_server_name(server_name)
        if parsed is None:
            return False
        host = server_name if parsed.port is None else server_name.rpartition(":")[0]
        names = (server_name, host)
        if any(self._deny.match(name) for name in names):
            return False
        return self._allow is None or any(self._allow.match(name) for name in names)
