"""User-interactive authentication as a pure table of sessions: flows, stages, and what a session is good for.

Client-Server API, "User-Interactive Authentication API". The rules of this file:

* A session belongs to one user (None before there is one), one operation and one request body, fixed by the first
  request that has a body; a request with `auth` alone means that body. Anything else is refused.
* A stage counts only when a flow of the operation offers it and its check, made by the caller, succeeded.
* A session is used up by the request that completes it, and dies at its time. A used one remembers a result and
  answers nothing but the very same request again, so that a client which lost the answer of `/register` gets it.
* No password is held: what identifies the body is a keyed digest, computed by the caller.

Sessions live in memory: a restart asks people to begin again, which the specification allows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.rules.errors import MatrixError

PASSWORD = "m.login.password"
DUMMY = "m.login.dummy"
TERMS = "m.login.terms"
REGISTRATION_TOKEN = "m.login.registration_token"

Flows = tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class Session:
    """One run through the stages. ``digest`` is None until a request with a body came."""

    session_id: str
    user_id: str | None
    operation: str
    flows: Flows
    params: Mapping[str, Any]
    expires: float
    digest: bytes | None = None
    remembered: Any = None
    completed: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    used: bool = False
    result: Any = None

    def is_complete(self) -> bool:
        """All stages of one of the flows are done."""
        return any(set(flow) <= set(self.completed) for flow in self.flows)

    def offers(self, stage: str) -> bool:
        """The stage is part of a flow."""
        return any(stage in flow for flow in self.flows)

    def challenge(self) -> dict[str, Any]:
        """The body of the 401 that asks for the stages which are still missing."""
        return {
            "session": self.session_id,
            "flows": [{"stages": list(flow)} for flow in self.flows],
            "params": dict(self.params),
            "completed": list(self.completed),
        }


class Sessions:
    """The open sessions, at most ``max_sessions`` (the oldest go first), each open for ``lifetime`` seconds.

    ``now`` gives seconds that never go back, ``new_id`` an unguessable string.
    """

    def __init__(
        self,
        now: Callable[[], float],
        new_id: Callable[[], str],
        lifetime: float = 900.0,
        max_sessions: int = 10_000,
    ) -> None:
        self._now = now
        self._new_id = new_id
        self._lifetime = lifetime
        self._max_sessions = max_sessions
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(
        self, user_id: str | None, operation: str, flows: Flows, params: Mapping[str, Any], digest: bytes | None
    ) -> Session:
        """Begin a session for this request."""
        now = self._now()
        self._drop_expired(now)
        while len(self._sessions) >= self._max_sessions:
            del self._sessions[next(iter(self._sessions))]
        session = Session(self._new_id(), user_id, operation, flows, params, now + self._lifetime, digest)
        self._sessions[session.session_id] = session
        return session

    def find(self, session_id: str) -> Session | None:
        """The session, while it is open; also a used one."""
        session = self._sessions.get(session_id)
        if session is not None and session.expires <= self._now():
            del self._sessions[session_id]
            return None
        return session

    def resume(self, session_id: str, user_id: str | None, operation: str, digest: bytes | None) -> Session:
        """The session that a request goes on with.

        Raises MatrixError 400 M_UNKNOWN for a session that is unknown, expired or used for another request, and
        403 M_FORBIDDEN when user, operation or body are not those it was begun for.
        """
        session = self.find(session_id)
        if session is None:
            raise MatrixError(400, "M_UNKNOWN", "Unknown or expired authentication session; begin again")
        if session.user_id != user_id or session.operation != operation:
            raise MatrixError(403, "M_FORBIDDEN", "This authentication session belongs to another request")
        if session.used:
            # Exactly the same request may ask for its answer again; the body must be there to show that it is.
            if session.result is None or digest is None or digest != session.digest:
                raise MatrixError(400, "M_UNKNOWN", "This authentication session has been used; begin again")
            return session
        if digest is not None and digest != session.digest:
            if session.digest is not None or (session.completed and user_id is not None):
                raise MatrixError(403, "M_FORBIDDEN", "The request has changed since this session began")
            session.digest = digest
        return session

    def complete(self, session: Session, stage: str, value: str = "") -> None:
        """Note that the check of a stage succeeded; ``value`` is kept for the operation (which token it was)."""
        if not session.offers(stage):
            raise MatrixError(400, "M_UNKNOWN", f"The stage {stage[:100]} is not part of this request")
        if stage not in session.completed:
            session.completed.append(stage)
        session.values[stage] = value

    def use(self, session: Session) -> None:
        """Use the session up. Raises MatrixError 401 when a stage is missing and 400 when somebody was faster."""
        if session.used:
            raise MatrixError(400, "M_UNKNOWN", "This authentication session has been used; begin again")
        if not session.is_complete():
            raise MatrixError(401, "M_FORBIDDEN", "Authentication is not complete")
        session.used = True
        session.remembered = None

    def drop_user(self, user_id: str) -> None:
        """Forget the sessions of a user who has lost the right to them."""
        for session_id in [key for key, value in self._sessions.items() if value.user_id == user_id]:
            del self._sessions[session_id]

    def _drop_expired(self, now: float) -> None:
        # Sessions all live equally long, so the oldest expire first.
        expired: list[str] = []
        for session_id, session in self._sessions.items():
            if session.expires > now:
                break
            expired.append(session_id)
        for session_id in expired:
            del self._sessions[session_id]
