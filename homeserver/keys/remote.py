"""What the keys of people on other servers need from federation.

Without federation :class:`NoRemoteKeys` stands in: every other server counts as one that could not be reached.
"""

from typing import Any, NamedTuple, Protocol

from storage.tables.one_time_keys import Wanted


class RemoteAnswer(NamedTuple):
    """What one other server answered; ``failure`` says why it could not, and then the rest is empty.

    ``keys`` has the fields of its `/keys/query` or `/keys/claim` answer, checked for shape and limited to the users
    that were asked for.
    """

    keys: dict[str, Any]
    failure: dict[str, Any] | None


class RemoteKeys(Protocol):
    """Ask another server about its users (Server-Server API, "End-to-End Encryption")."""

    async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
        """Device and cross-signing keys; answers within the time, whatever the other server does."""

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        """One key for each wish; answers within the time, whatever the other server does."""


class NoRemoteKeys:
    """The server does not federate: nobody else can be reached."""

    async def query(self, server: str, devices: dict[str, list[str]], timeout_ms: int) -> RemoteAnswer:
        """Always a failure."""
        return _UNREACHABLE

    async def claim(self, server: str, wanted: list[Wanted], timeout_ms: int) -> RemoteAnswer:
        """Always a failure."""
        return _UNREACHABLE


_UNREACHABLE = RemoteAnswer({}, {"errcode": "M_UNKNOWN", "error": "This server cannot be reached", "status": 503})
