"""How a request to another server can end badly."""

from federation.rules.errors import MatrixError


class PeerUnreachable(Exception):
    """No answer that counts: not resolved, not connected, not in time, not HTTP, or not tried because of back-off.

    ``server_name`` is whom we wanted; ``retry_at`` (ms since the epoch) is set when it was not even tried.
    """

    def __init__(self, server_name: str, reason: str, retry_at: int | None = None) -> None:
        super().__init__(f"{server_name}: {reason}")
        self.server_name = server_name
        self.reason = reason
        self.retry_at = retry_at


class PeerNotAllowed(PeerUnreachable):
    """This server's operator does not federate with that one."""


class AnswerTooLarge(PeerUnreachable):
    """More bytes than we were prepared to take."""


class AnswerNotUnderstood(PeerUnreachable):
    """A success that carries no JSON object."""


class RequestRefused(MatrixError):
    """The other server answered, and it answered no. Carries its status and Matrix error.

    ``errcode`` is ``M_UNKNOWN`` when there is none. ``retry_after_ms`` is what a 429 asked for, ``room_version`` what
    M_INCOMPATIBLE_ROOM_VERSION tells.
    """

    def __init__(
        self,
        server_name: str,
        status: int,
        errcode: str,
        error: str,
        retry_after_ms: int | None = None,
        room_version: str | None = None,
    ) -> None:
        super().__init__(status, errcode, error, **({} if room_version is None else {"room_version": room_version}))
        self.server_name = server_name
        self.retry_after_ms = retry_after_ms
