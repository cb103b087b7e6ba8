"""User-interactive authentication around the pure sessions: reads requests, checks stages, answers 401.

An endpoint that changes something precious asks `require` first::

    challenge = await interactive_auth.require(call, "delete device X")
    if challenge is not None:
        return challenge

Check everything else about the request before: success uses the session up.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from federation.rules.errors import MatrixError
from homeserver.accounts.interactive_auth import PASSWORD, Flows, Session, Sessions
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.user_names import full_user_id
from homeserver.web.call import Answer, Call
from homeserver.web.limits import Limits
from storage.tables import users
from storage.tables.database import Database

StageCheck = Callable[[Session, Mapping[str, Any]], Awaitable[str]]
"""Checks what a client submitted for a stage. Returns a value to keep; raises MatrixError to refuse (401)."""

PASSWORD_FLOWS: Flows = ((PASSWORD,),)


class InteractiveAuth:
    """``checks`` maps a stage to its check; the password stage is added here."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        sessions: Sessions,
        limits: Limits,
        server_name: str,
    ) -> None:
        self.sessions = sessions
        self.checks: dict[str, StageCheck] = {PASSWORD: self._check_password}
        self._database = database
        self._passwords = passwords
        self._limits = limits
        self._server_name = server_name
        self._key = secrets.token_bytes(32)

    async def require(self, call: Call, operation: str) -> Answer | None:
        """None when the caller has proved to be the owner of the account for exactly this request, else the answer.

        ``operation`` names what is asked for, objects included (``delete device ABC``): a session made for another
        operation or another body is refused. An application service need not prove anything.
        Raises MatrixError 400 and 403 for sessions that are unknown, used or of another request.
        """
        requester = call.requester
        if requester.app_service is not None:
            return None
        outcome = await self.proceed(call.json_object(), requester.user_id, operation, PASSWORD_FLOWS, {})
        if isinstance(outcome, Answer):
            return outcome
        self.sessions.use(outcome)
        return None

    async def proceed(
        self,
        body: dict[str, Any],
        user_id: str | None,
        operation: str,
        flows: Flows,
        params: Mapping[str, Any],
        remember: Callable[[Session], Awaitable[None]] | None = None,
    ) -> Session | Answer:
        """One step: the session when all its stages are done (use it up before acting), else the 401 answer.

        ``remember`` is called for a session that goes on, before its 401, so that it may keep parameters.
        """
        auth = body.get("auth")
        if auth is not None and not isinstance(auth, dict):
            raise MatrixError(400, "M_BAD_JSON", "`auth` has to be an object")
        digest = self._digest({key: value for key, value in body.items() if key != "auth"})
        session = self._session(auth or {}, user_id, operation, flows, params, digest)
        if session.used:
            return session
        refusal = await self._step(session, auth or {})
        if refusal is None and session.is_complete():
            return session
        if remember is not None and not session.used:
            await remember(session)
        return Answer(401, session.challenge() | (refusal.body() if refusal else {}))

    async def submit(self, session: Session, stage: str, fields: Mapping[str, Any]) -> None:
        """Check a stage and count it as completed. Raises MatrixError when it is not offered or the check fails."""
        check = self.checks.get(stage)
        if check is None or not session.offers(stage):
            raise MatrixError(401, "M_UNRECOGNIZED", "This stage is not part of the request")
        value = await check(session, fields)
        self.sessions.complete(session, stage, value)

    def _session(
        self,
        auth: Mapping[str, Any],
        user_id: str | None,
        operation: str,
        flows: Flows,
        params: Mapping[str, Any],
        digest: bytes | None,
    ) -> Session:
        session_id = auth.get("session")
        if session_id is None:
            return self.sessions.open(user_id, operation, flows, params, digest)
        if not isinstance(session_id, str):
            raise MatrixError(400, "M_BAD_JSON", "`session` has to be a string")
        return self.sessions.resume(session_id, user_id, operation, digest)

    async def _step(self, session: Session, auth: Mapping[str, Any]) -> MatrixError | None:
        """Check the stage of this request, if it brings one. Returns the refusal that goes with the 401."""
        stage = auth.get("type")
        if stage is None:
            return None
        if not isinstance(stage, str):
            raise MatrixError(400, "M_BAD_JSON", "`type` has to be a string")
        try:
            await self.submit(session, stage, auth)
        except MatrixError as error:
            if error.status != 401:
                raise
            return error
        return None

    async def _check_password(self, session: Session, auth: Mapping[str, Any]) -> str:
        user_id = session.user_id
        password = auth.get("password")
        if user_id is None or not isinstance(password, str):
            raise MatrixError(400, "M_MISSING_PARAM", "`password` is missing")
        named = named_user(auth)
        if named is not None and full_user_id(named, self._server_name).lower() != user_id.lower():
            raise MatrixError(403, "M_FORBIDDEN", "Only the owner of the account can confirm this")
        await self.check_password(user_id, password)
        return user_id

    async def check_password(self, user_id: str, password: str) -> None:
        """Raises MatrixError 401 M_FORBIDDEN unless it is the password of the account, 429 after too many attempts."""
        refuse_when_tried_out(self._limits, user_id)
        user = await self._database.run(lambda cur: users.user_by_id(cur, user_id))
        stored = user.password_hash if user is not None and not user.deactivated else None
        if not await self._passwords.verify(password, stored):
            count_failed_attempt(self._limits, user_id)
            raise MatrixError(401, "M_FORBIDDEN", "Wrong password")

    def _digest(self, body: Mapping[str, Any]) -> bytes | None:
        """A keyed digest of the request: equal for equal requests, and worth nothing outside this process."""
        if not body:
            return None
        encoded = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        return hmac.digest(self._key, encoded, hashlib.sha256)


def named_user(fields: Mapping[str, Any]) -> str | None:
    """The user that ``identifier`` (`m.id.user`) or the older ``user`` names; None when neither is there."""
    identifier = fields.get("identifier")
    if isinstance(identifier, dict):
        user = identifier.get("user") if identifier.get("type") == "m.id.user" else None
    else:
        user = fields.get("user")
    return user if isinstance(user, str) else None


def refuse_when_tried_out(limits: Limits, user_id: str) -> None:
    """Raises MatrixError 429 while an account has seen too many wrong passwords."""
    wait = limits.wait("login.failed_attempts", user_id)
    if wait > 0:
        raise MatrixError(429, "M_LIMIT_EXCEEDED", "Too many wrong passwords", retry_after_ms=int(wait * 1000) + 1)


def count_failed_attempt(limits: Limits, user_id: str) -> None:
    """Note a wrong password."""
    try:
        limits.take("login.failed_attempts", user_id)
    except MatrixError:
        pass  # attempts made at the same moment: the next ones will be refused
